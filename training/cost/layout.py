"""How the workers of a run share its work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.cost.flops import Checkpointing

#: From the fastest to the one that needs least memory.
CHECKPOINTING_MODES: tuple[Checkpointing, ...] = ("none", "selective", "full")

GradientReduction = Literal["step", "micro_batch"]


@dataclass(frozen=True)
class ParallelLayout:
    """How the workers share the work, and what they recompute."""

    replicate: int
    shard: int
    sequence: int
    checkpointing: Checkpointing
    micro_batch: int  # of tasks whose own is not smaller
    reduce: GradientReduction = "step"

    @property
    def workers(self) -> int:
        """Number of workers."""
        return self.replicate * self.shard * self.sequence

    @property
    def groups(self) -> int:
        """Groups of workers that see different samples."""
        return self.replicate * self.shard

    def __str__(self) -> str:
        """Overrides of the config that set this layout."""
        return (
            f"run.workers={self.workers} parallel.replicate={self.replicate} parallel.shard={self.shard} "
            f"parallel.sequence={self.sequence} parallel.reduce={self.reduce} "
            f"compute.checkpointing={self.checkpointing} tasks.0.micro_batch={self.micro_batch}"
        )
