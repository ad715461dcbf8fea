"""Averaged weights, sharded like the weights they average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Ema:
    """average <- decay * average + (1 - decay) * weight, after each step, in float32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.averages: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in self._live.items()
        }

    def update_averages(self) -> None:
        """Move the averages towards the weights; once after each step."""
        averages = [_get_local(average) for average in self.averages.values()]
        weights = [_get_local(parameter.detach()) for parameter in self._live.values()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay)

    @contextmanager
    def use_averages(self) -> Iterator[None]:
        """Swap the averages into the model for the time of the context."""
        self._swap_weights()
        try:
            yield
        finally:
            self._swap_weights()

    def _swap_weights(self) -> None:
        for name, parameter in self._live.items():
            weight, average = _get_local(parameter.detach()), _get_local(self.averages[name])
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)


def _get_local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
