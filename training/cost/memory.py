"""Bytes on a GPU, and the numbers of parameters that most of them follow from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.config import LoraConfig
from training.cost import activations
from training.cost.units import GIB
from training.models.build import make_shape

# What a process holds besides tensors (CUDA context, NCCL, cuBLAS), and what the allocator cannot use. Both
# are our own measurements.
CONTEXT_BYTES = int(1.5 * GIB)
FRAGMENTATION_SHARE = 0.05


@dataclass(frozen=True)
class GpuMemory:
    """Bytes on each GPU."""

    parameters: int  # this worker's shard: float32, frozen ones in the type of `lora.frozen`
    gradients: int  # float32
    optimizer: int  # two moments, float32
    ema: int
    gathered: int  # whole weights and gradients of the blocks that are being computed
    activations: int  # peak, of one micro-batch
    decoding: int  # VAE and its work on a video of validation, while there are no gradients and activations
    context: int = CONTEXT_BYTES

    @property
    def total(self) -> int:
        """Peak of all together, with a share for fragmentation."""
        always = self.parameters + self.optimizer + self.ema + self.gathered
        tensors = always + max(self.gradients + self.activations, self.decoding)
        return int(tensors * (1 + FRAGMENTATION_SHARE)) + self.context


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters."""

    total: int
    trained: int
    block: int  # of one block
    rest: int  # outside the blocks

    @classmethod
    def from_config(cls, config: Mapping[str, Any], lora: LoraConfig | None = None) -> ParameterCounts:
        """Count on the real class, built without memory from a diffusers config."""
        one, two = (activations.count_parameters(config, layers, lora) for layers in (1, 2))
        layers, block = make_shape(config).layers, two[0] - one[0]
        return cls(
            total=one[0] + (layers - 1) * block,
            trained=one[1] + (layers - 1) * (two[1] - one[1]),
            block=block,
            rest=one[0] - block,
        )
