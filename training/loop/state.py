"""Everything that a run holds in memory: what the loop works on and what callbacks look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from training.config import TrainConfig
from training.loop.world import World

if TYPE_CHECKING:
    from training.loop.ema import Ema
    from training.loop.run_folder import RunFolder
    from training.models.family import Family
    from training.sampler import Sampler
    from training.tasks.base import Task


@dataclass
class State:
    config: TrainConfig
    world: World
    folder: RunFolder  # where the run writes
    family: Family
    model: nn.Module  # sharded: parameters are DTensors; call it through `family.predict` or `task.loss`
    tasks: Mapping[str, Task]  # by name
    sampler: Sampler
    optimizer: torch.optim.Optimizer
    ema: Ema | None  # `with state.ema.swapped():` the model holds the averaged weights
    step: int = 0  # optimizer steps done

    @property
    def device(self) -> torch.device:
        return self.world.device
