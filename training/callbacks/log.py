"""Aggregate the metrics of a run and pass them to its writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from training.callbacks.throughput import Throughput
from training.cost.devices import get_peak_flops
from training.loop.callback import Callback

if TYPE_CHECKING:
    from training.loop.state import RunState

Scalars = Mapping[str, float]


class MetricsWriter(Protocol):
    """A target of metrics on the main worker. A failing writer must not end the run."""

    def start(self, state: RunState) -> None:
        """Start after `state.step` steps; later records, from an interrupted run, no longer count."""

    def write(self, step: int, scalars: Scalars) -> None:
        """Write the numbers of a step, by name."""

    def close(self) -> None:
        """Finish; called after an error, too."""


class MetricsLog(Callback):
    """Aggregate metrics every `log.every` steps. Other callbacks add numbers with `record_scalars`."""

    def __init__(self, writers: Sequence[MetricsWriter], every: int) -> None:
        self.writers, self.every = list(writers), every
        self._throughput: Throughput | None = None
        self._main = False

    def on_start(self, state: RunState) -> None:
        """See `Callback.on_start`."""
        config, world = state.config, state.world
        peak = resolve_peak_flops(state.device, config.log.peak_tflops)
        text_tokens = max(latents.manifest.text.length for latents in state.latents.values())
        self._throughput = Throughput(
            state.family.make_shape(state.model.config, text_tokens),
            peak * world.size if peak else None,
            config.steps,
            frozen=config.lora is not None,
            token_timesteps=state.family.has_token_timesteps(config.positions),
        )
        self._main = world.is_main
        for writer in self.writers if self._main else ():
            writer.start(state)

    def on_step(self, state: RunState, metrics: Mapping[str, float]) -> None:
        """See `Callback.on_step`."""
        if self._throughput is None or not self._main:
            return
        self._throughput.add_step(metrics)
        if state.step % self.every == 0 or state.step == state.config.steps:
            self.record_scalars(state.step, self._throughput.pop_scalars(state.step))

    def record_scalars(self, step: int, scalars: Scalars) -> None:
        """Pass the numbers of a step to the writers; only the main worker has any."""
        for writer in self.writers if self._main and scalars else ():
            writer.write(step, scalars)

    def on_end(self, state: RunState, error: BaseException | None) -> None:
        """See `Callback.on_end`."""
        if self._main and self._throughput is not None:
            self.record_scalars(state.step, self._throughput.pop_scalars(state.step))
            for writer in self.writers:
                writer.close()


def resolve_peak_flops(device: Any, tflops: float | None) -> float | None:
    """FLOP/s of one worker's device: the config's `tflops` (1e12), else by its name; None: not known."""
    if tflops:
        return tflops * 1e12
    if device.type != "cuda":
        return None
    return get_peak_flops(torch.cuda.get_device_name(device))
