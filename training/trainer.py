"""The loop on Ray Train: workers are started, watched, and started again from the last complete checkpoint.

    from training.trainer import fit
    result = fit(config)

Ray holds no checkpoint of ours: the run's folder does, and the same `run.name` and `run.output` find it. So a
worker that dies, a machine that is taken away, and a command that is given again all resume in the same way.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprise.errors import RepriseError
from training.callbacks.base import Callback
from training.cluster import started
from training.config import TrainConfig
from training.loop.run_folder import RunFolder

STOPPED = "stopped.json"
TIMEOUT_S = 1800  # that a collective may take: a slow disk under a checkpoint, not a slow step

#: Config -> callbacks, called on every worker.
Callbacks = Callable[[TrainConfig], Sequence[Callback]]


@dataclass(frozen=True)
class Result:
    """What a finished run left behind."""

    folder: str  # of the run
    model: str  # a diffusers pipeline folder
    checkpoint: str  # the last one
    steps: int
    metrics: Mapping[str, float]  # of the last step, if this run made one; see Callback.on_step


def fit(config: TrainConfig, callbacks: Callbacks | None = None) -> Result:
    """Train as the config says, on the Ray that `run.address` names or one of our own.

    Resumes where a run of the same name stands. Workers that are lost are replaced `run.max_failures` times.

    callbacks: default: those of the config (`callbacks/build.py`).

    Raises:
        RepriseError: anything that a person must mend: config, data, a loss that is not finite.
    """
    from training.loop.world import sizes

    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    sizes(config.parallel, config.run.workers)
    config = _absolute(config)
    folder = RunFolder.of(config.run)
    _check_unchanged(config, folder)
    folder.root.delete(STOPPED)
    with started(config.run.address, cpus=config.run.workers * config.run.cpus_per_worker) as ours:
        found = _run(config, callbacks or _default_callbacks, folder, ours)
    reason = _stopped(folder)
    if reason is not None:
        raise RepriseError(reason)
    if found is None:
        raise RuntimeError("training failed")
    return Result(folder=folder.root.uri, model=folder.join("model"), **found)


def _run(config: TrainConfig, callbacks: Callbacks, folder: RunFolder, ours: bool) -> dict[str, Any] | None:
    """What the first worker returned; None: it stopped for a reason that it wrote down."""
    import ray.train
    from ray import cloudpickle
    from ray.train.torch import TorchTrainer

    run = config.run
    gpus = _gpus(config)
    _check_resources(config, gpus, ours)
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "callbacks": cloudpickle.dumps(callbacks),
        },
        torch_config=_torch_config("cpu:gloo,cuda:nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=run.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": run.cpus_per_worker} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name="ray",  # below the run's folder: logs of Ray's own
            storage_path=folder.root.uri.removeprefix("s3://"),
            storage_filesystem=folder.root.filesystem() if folder.root.remote else None,
            failure_config=ray.train.FailureConfig(max_failures=run.max_failures),
        ),
    )
    try:
        found: dict[str, Any] | None = trainer.fit().return_value
        return found
    except ray.train.TrainingFailedError as error:
        if _stopped(folder) is not None:
            return None
        first = next(iter(getattr(error, "worker_failures", {}).values()), error)
        words = str(first).strip().splitlines() or [type(first).__name__]
        raise RuntimeError(
            f"training failed {run.max_failures + 1} times, the last time with: {words[-1]}"
        ) from error


def _work(settings: dict[str, Any]) -> dict[str, Any] | None:
    """What each worker does."""
    import ray.train
    import ray.train.torch
    import torch
    from ray import cloudpickle

    from training.loop.loop import train
    from training.loop.world import make_world

    config = TrainConfig.model_validate(settings["config"])
    folder = RunFolder.of(config.run)
    if _stopped(folder) is not None:
        # Started again after an error that would come again. All workers see it, and all end here.
        return None
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, math.ceil(config.run.cpus_per_worker)))
    reporting = _Reporting()
    try:
        state = train(
            config,
            make_world(config.parallel, device=device),
            (*cloudpickle.loads(settings["callbacks"])(config), reporting),
            draining=lambda: ray.train.get_preemption_info() is not None,
        )
    except RepriseError as error:
        folder.root.write(STOPPED, (json.dumps({"error": str(error)}) + "\n").encode())
        raise
    return {
        "steps": state.step,
        "checkpoint": folder.join(folder.checkpoint(state.step)),
        "metrics": reporting.last,
    }


class _Reporting(Callback):
    """Tells Ray how far it is, for its dashboard; and remembers the last step."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        self.last = dict(metrics)

    def on_checkpoint(self, state: Any, path: str) -> None:
        import ray.train

        ray.train.report({"step": state.step, "checkpoint_path": path, **self.last})


def _torch_config(backend: str) -> Any:
    """Ray's setup of torch.distributed, and in each worker an ear for SIGTERM."""
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    from training.loop.preemption import listen

    class Backend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            super().on_start(worker_group, backend_config)
            # Here, because this runs in the main thread of a worker, and training does not.
            worker_group.execute(listen)

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> type:
            return Backend

    return Config(backend=backend, timeout_s=TIMEOUT_S)


def _check_unchanged(config: TrainConfig, folder: RunFolder) -> None:
    """Refuse a changed config before anything is started; workers look at the data as well."""
    from training.loop.checkpoint import check_config

    for step in folder.complete()[-1:]:
        check_config(folder.facts(step), config, folder.join(folder.checkpoint(step)))


def _stopped(folder: RunFolder) -> str | None:
    """Why the run stopped, if it is a reason that starting again does not mend."""
    if not folder.root.exists(STOPPED):
        return None
    return str(json.loads(folder.root.read(STOPPED))["error"])


def _gpus(config: TrainConfig) -> float:
    """GPUs of each worker."""
    import ray

    there = float(ray.cluster_resources().get("GPU", 0.0))
    wanted = config.run.gpus_per_worker
    return (1.0 if there else 0.0) if wanted == -1 else wanted


def _check_resources(config: TrainConfig, gpus: float, ours: bool) -> None:
    """Refuse what this machine cannot give: Ray would wait for it for ever. A cluster may grow."""
    import ray

    there = ray.cluster_resources()
    workers = config.run.workers
    for name, each in (("CPU", config.run.cpus_per_worker), ("GPU", gpus)):
        if ours and each * workers > there.get(name, 0.0):
            raise RepriseError(
                f"run.workers: {workers} workers with {each:g} {name} each, but this machine has "
                f"{there.get(name, 0.0):g}: use fewer workers, or give run.address of a cluster"
            )


def _absolute(config: TrainConfig) -> TrainConfig:
    """Local paths from the root: workers have another working directory."""

    def placed(path: str) -> str:
        return str(Path(path).absolute()) if path and "://" not in path and Path(path).exists() else path

    tasks = tuple(task.model_copy(update={"latents": placed(task.latents)}) for task in config.tasks)
    output = config.run.output
    if "://" not in output:
        output = str(Path(output).absolute())
    return config.model_copy(
        update={
            "tasks": tasks,
            "model": config.model.model_copy(update={"path": placed(config.model.path)}),
            "run": config.run.model_copy(update={"output": output}),
        }
    )


def _default_callbacks(config: TrainConfig) -> Sequence[Callback]:
    from training.callbacks.build import build_callbacks

    return build_callbacks(config)
