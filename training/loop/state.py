"""The state of a run in memory, which the loop changes and callbacks read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from training.config import TrainConfig
from training.data.loader import Loader
from training.data.sampler import Sampler
from training.latents.store import Latents
from training.loop.ema import Ema
from training.loop.run_folder import RunFolder
from training.loop.world import World
from training.models.family import Family
from training.tasks.task import LossContext, Task


@dataclass
class RunState:
    """One worker's part of a run."""

    config: TrainConfig
    world: World
    folder: RunFolder  # where the run writes
    family: Family
    model: (
        nn.Module
    )  # sharded: parameters are DTensors; call it through `task.compute_loss` or `family.predict`
    context: LossContext  # what losses are computed with
    tasks: Mapping[str, Task]  # by name
    latents: Mapping[str, Latents]  # by the name of the task
    sampler: Sampler
    loader: Loader  # of this worker's data rank
    optimizer: torch.optim.Optimizer
    ema: Ema | None  # `with state.ema.use_averages():` the model holds the averaged weights
    step: int = 0  # optimizer steps done

    @property
    def device(self) -> torch.device:
        """This worker's device."""
        return self.world.device
