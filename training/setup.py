"""Build the state of a run in memory from its config and its workers."""

from __future__ import annotations

import os

import torch
from torch import nn

from reprise.errors import RepriseError
from training.config import TrainConfig
from training.data.check import check_lengths, check_shapes
from training.data.loader import Loader
from training.data.sampler import Sampler
from training.latents.check import check_latents
from training.latents.store import Latents
from training.loop.ema import Ema
from training.loop.optimizer import make_optimizer
from training.loop.parallel import convert_frozen_weights, parallelize_model
from training.loop.run_folder import RunFolder
from training.loop.state import RunState
from training.loop.world import World
from training.lora import in_training
from training.models import sharded_weights
from training.models.build import build_family
from training.models.components import fetch_part, load_scheduler, load_transformer
from training.models.family import Family
from training.models.packing import SequenceShard
from training.precision import DTYPES
from training.tasks.build import build_tasks, share_replay
from training.tasks.task import LossContext, Task


def build_state(config: TrainConfig, world: World) -> RunState:
    """Build a run's state. Data is built before the model, so that its errors appear before the slow part.

    Args:
        config: of the run.
        world: all workers, and the place of this one among them.

    Raises:
        RepriseError: the config, the data or the model cannot be trained.
    """
    family = build_family(config.model)
    watched = config.conflict.every is not None
    tasks = build_tasks(share_replay(config.tasks, config.replay, keep_zero_weight=watched))
    latents = open_latents(tasks)
    for each in {each.folder.uri: each for each in latents.values()}.values():
        check_latents(each, family, config.model)
    sampler = Sampler(
        tasks,
        [latents[task.name].records for task in tasks],
        seed=config.seed,
        holdout=config.validation.holdout,
    )
    _check_batches(tasks, world)
    for number, task in enumerate(tasks):
        option, records = f"tasks.{number}.micro_batch", latents[task.name].records
        check_shapes(option, sampler.buckets[task.name], records, task.list_variants(), task.micro_batch)
    for task in tasks if world.sequence_size > 1 else ():
        check_lengths(task, sampler.buckets[task.name], family.patch, world.sequence_size)
    model = build_model(config, family, world)
    scheduler = None
    if family.objective == "v_prediction":  # its noise schedule is a file of the model
        scheduler = load_scheduler(config.model.path, config.model.revision)
    sharded = SequenceShard(world.sequence_rank, world.sequence_size) if world.sequence_size > 1 else None
    context = LossContext(
        model=model,
        family=family,
        objective=family.make_objective(config.objective, scheduler),
        positions=config.positions,
        seed=config.seed,
        dtype=DTYPES[config.compute.precision],
        shard=sharded,
    )
    cores = os.cpu_count() or 1
    loader = Loader(
        sampler,
        latents,
        rank=world.data_rank,
        ranks=world.data_size,
        threads=max(1, min(8, cores // world.local_size)),
        pin_memory=world.device.type == "cuda",
        data=config.data,
    )
    return RunState(
        config=config,
        world=world,
        folder=RunFolder.from_config(config.run),
        family=family,
        model=model,
        context=context,
        tasks={task.name: task for task in tasks},
        latents=latents,
        sampler=sampler,
        loader=loader,
        optimizer=make_optimizer(config.optimizer, model),
        ema=Ema(model, config.optimizer.ema) if config.optimizer.ema is not None else None,
    )


def build_model(config: TrainConfig, family: Family, world: World) -> nn.Module:
    """Build the transformer: made on the meta device, sharded over the workers, then given its weights."""
    model = load_transformer(config.model, family.transformer, torch.float32, "meta")
    references = max((task.max_references for task in build_tasks(config.tasks)), default=0)
    family.prepare_model(model, config.positions, references)
    file = in_training.add_adapters(model, config, family.name)
    model.train()
    if config.lora is not None and config.lora.frozen == "compute":
        convert_frozen_weights(model, family, DTYPES[config.compute.precision])
    parallelize_model(model, family, world, config.compute)
    if config.model.init == "random":
        sharded_weights.initialize_weights(model, config.seed, world.device)
    else:
        folder, _ = fetch_part(config.model.path, config.model.revision, "transformer")
        sharded_weights.load_sharded_weights(model, folder, config.seed, world.device)
        in_training.load_token(model, folder.parent)  # it is beside a transformer that was trained with it
    if file is not None:
        in_training.load_adapters(model, file)
    return model


def open_latents(tasks: list[Task]) -> dict[str, Latents]:
    """Open the latents of each task, by the task's name; a folder that two tasks share is opened once."""
    folders: dict[str, Latents] = {}
    for task in tasks:
        if task.latents not in folders:
            folders[task.latents] = Latents(task.latents)
    return {task.name: folders[task.latents] for task in tasks}


def _check_batches(tasks: list[Task], world: World) -> None:
    for number, task in enumerate(tasks):
        if task.batch % world.data_size:
            raise RepriseError(
                f"tasks.{number}.batch: {task.batch} samples cannot be shared by {world.data_size} workers "
                f"with samples of their own: make it a multiple of {world.data_size}"
            )
