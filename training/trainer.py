"""Training on Ray Train: workers are started, and restarted from the last complete checkpoint.

    from training.trainer import run_training
    result = run_training(config)

Checkpoints are in the run's folder, not in Ray, and the same `run.name` and `run.output` find them. So a
worker that dies, a machine that is taken away, and a command that is repeated all resume in the same way.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprise.errors import RepriseError, TransientStorageError, WorkersLostError
from reprise.lock import lock_folder
from reprise.ray_session import ray_session
from reprise.storage import Storage
from training.config import TrainConfig, list_recipes
from training.loop.callback import Callback
from training.loop.run_folder import RunFolder

STOPPED_FILE = "stopped.json"
COLLECTIVE_TIMEOUT_S = 1800  # limit of a collective: writing a checkpoint to a slow disk takes longest

#: Config -> callbacks, called on every worker.
CallbackFactory = Callable[[TrainConfig], Sequence[Callback]]


@dataclass(frozen=True)
class TrainingResult:
    """Where a finished run wrote its results, and its last metrics."""

    folder: str  # of the run
    model: str  # a diffusers pipeline folder
    checkpoint: str  # the last one
    steps: int
    metrics: Mapping[str, float]  # of the last step, if this run made one; see Callback.on_step


def check_trainable(config: TrainConfig) -> None:
    """Check a config before workers start.

    Raises:
        RepriseError: there is no task or no model, or a package is missing.
    """
    from training.callbacks.wandb import require_wandb

    if not config.tasks:
        raise RepriseError(
            f"no task to train: give --recipe ({', '.join(list_recipes())}), or a config with `tasks`"
        )
    if not config.model.path:
        raise RepriseError("model.path is empty: set it to a diffusers folder or hub id")
    if config.log.wandb:
        require_wandb()


def run_training(config: TrainConfig, callbacks: CallbackFactory | None = None) -> TrainingResult:
    """Train on the Ray that `run.address` names, or on one that is started here.

    A run of the same name is resumed. Lost workers are replaced, until more than `run.max_failures` attempts
    in a row have made no new checkpoint.

    callbacks: default: those of the config (`callbacks/build.py`).

    Raises:
        RepriseError: an error that the user must correct: config, data, a loss that is not finite.
        WorkersLostError: workers failed more often than `run.max_failures`.
    """
    from training.loop.world import compute_mesh_sizes

    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    compute_mesh_sizes(config.parallel, config.run.workers)
    config = _make_paths_absolute(config)
    folder = RunFolder.from_config(config.run)
    _check_unchanged(config, folder)
    run = config.run
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_folder(folder.root, create=True))
        for latents in sorted({Storage.from_uri(task.latents).uri for task in config.tasks if task.latents}):
            stack.enter_context(lock_folder(Storage(latents), shared=True))
        # What cannot be written is an error here, not in Ray's controller.
        folder.root.write_bytes(STOPPED_FILE, b'{"error": "the run was stopped at its start"}\n')
        folder.root.delete_file(STOPPED_FILE)
        session = stack.enter_context(ray_session(run.address, min_cpus=run.workers * run.cpus_per_worker))
        found = _run_trainer(config, callbacks or _build_default_callbacks, folder, session.started_here)
    reason = _read_stop_reason(folder)
    if reason is not None:
        raise RepriseError(reason)
    if found is None:
        raise WorkersLostError("training stopped without a result: the logs of Ray's workers say why")
    return TrainingResult(folder=folder.root.uri, model=folder.get_address("model"), **found)


def check_resumable(config: TrainConfig) -> None:
    """Check that a config may continue the run of its name, if there is one.

    Raises:
        RepriseError: the run was started with another config.
    """
    _check_unchanged(_make_paths_absolute(config), RunFolder.from_config(config.run))


def _run_trainer(
    config: TrainConfig, callbacks: CallbackFactory, folder: RunFolder, started_here: bool
) -> dict[str, Any] | None:
    """Run the trainer and return the result of the first worker; None if it recorded why it stopped."""
    import ray.train

    gpus = _get_worker_gpus(config)
    _check_resources(config, gpus, started_here)
    failures, reached = 0, _get_last_step(folder)
    while True:
        try:
            with _restore_sigint():
                result = _make_trainer(config, callbacks, folder, gpus).fit()
            found: dict[str, Any] | None = result.return_value
            return found
        except ray.train.TrainingFailedError as error:
            if _read_stop_reason(folder) is not None:
                return None
            before, reached = reached, _get_last_step(folder)
            failures = failures + 1 if reached == before else 1
            if 0 <= config.run.max_failures < failures:
                first = next(iter(getattr(error, "worker_failures", {}).values()), error)
                message = str(first).strip().splitlines() or [type(first).__name__]
                raise WorkersLostError(
                    f"training failed {failures} times without a new checkpoint, the last time with: "
                    f"{message[-1]}"
                ) from error


@contextlib.contextmanager
def _restore_sigint() -> Iterator[None]:
    """Put the handler of SIGINT back: Ray Train leaves its own, which calls a controller that is gone."""
    previous = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and previous is not None:
            signal.signal(signal.SIGINT, previous)


def _get_last_step(folder: RunFolder) -> int:
    """Return the step of the newest complete checkpoint; 0: there is none."""
    return max(folder.list_complete_steps(), default=0)


def _make_trainer(config: TrainConfig, callbacks: CallbackFactory, folder: RunFolder, gpus: float) -> Any:
    """Make one attempt. Ray Train counts all failures of a run; `_run_trainer` those without progress."""
    import ray.train
    from ray import cloudpickle
    from ray.train.torch import TorchTrainer

    run = config.run
    return TorchTrainer(
        _run_worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "callbacks": cloudpickle.dumps(callbacks),
        },
        torch_config=_make_torch_config("cpu:gloo,cuda:nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=run.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": run.cpus_per_worker} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name="ray",  # below the run's folder: Ray's logs
            storage_path=folder.root.get_arrow_path(),
            storage_filesystem=folder.root.get_filesystem() if folder.root.is_remote else None,
            failure_config=ray.train.FailureConfig(max_failures=0),
        ),
    )


def _run_worker(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Run the training loop in one worker."""
    import ray.train
    import ray.train.torch
    import torch
    from ray import cloudpickle

    from training.loop.world import make_world
    from training.worker import train_model

    config = TrainConfig.model_validate(settings["config"])
    folder = RunFolder.from_config(config.run)
    if _read_stop_reason(folder) is not None:
        # The run was restarted after an error that would occur again. All workers read it, and all stop here.
        return None
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, math.ceil(config.run.cpus_per_worker)))
    reporting = _RayReporter()
    try:
        state = train_model(
            config,
            make_world(config.parallel, device=device),
            (*cloudpickle.loads(settings["callbacks"])(config), reporting),
            is_draining=lambda: ray.train.get_preemption_info() is not None,
        )
    except TransientStorageError:
        raise  # Ray Train starts the workers again
    except RepriseError as error:
        folder.root.write_bytes(STOPPED_FILE, (json.dumps({"error": str(error)}) + "\n").encode())
        raise
    return {
        "steps": state.step,
        "checkpoint": folder.get_address(folder.get_checkpoint_path(state.step)),
        "metrics": reporting.last,
    }


class _RayReporter(Callback):
    """Reports progress to Ray's dashboard, and keeps the metrics of the last step."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        self.last = dict(metrics)

    def on_checkpoint(self, state: Any, path: str) -> None:
        import ray.train

        ray.train.report({"step": state.step, "checkpoint_path": path, **self.last})


def _make_torch_config(backend: str) -> Any:
    """Ray's setup of torch.distributed, with a SIGTERM handler in each worker."""
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    from training.loop.preemption import install_handler

    class SignalBackend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            super().on_start(worker_group, backend_config)
            # A handler must be installed in the main thread; training runs in another.
            worker_group.execute(install_handler)

    class SignalConfig(TorchConfig):
        @property
        def backend_cls(self) -> type:
            return SignalBackend

    return SignalConfig(backend=backend, timeout_s=COLLECTIVE_TIMEOUT_S)


def _check_unchanged(config: TrainConfig, folder: RunFolder) -> None:
    """Refuse a changed config before workers start; they check the data, too."""
    from training.loop.checkpoint import check_same_config

    for step in folder.list_complete_steps()[-1:]:
        check_same_config(
            folder.read_facts(step), config, folder.get_address(folder.get_checkpoint_path(step))
        )


def _read_stop_reason(folder: RunFolder) -> str | None:
    """Read why the run stopped, if a restart would not help."""
    if not folder.root.exists(STOPPED_FILE):
        return None
    return str(json.loads(folder.root.read_bytes(STOPPED_FILE))["error"])


def _get_worker_gpus(config: TrainConfig) -> float:
    """Return the number of GPUs of each worker."""
    import ray

    there = float(ray.cluster_resources().get("GPU", 0.0))
    wanted = config.run.gpus_per_worker
    return (1.0 if there else 0.0) if wanted == -1 else wanted


def _check_resources(config: TrainConfig, gpus: float, started_here: bool) -> None:
    """Refuse more resources than this machine has, because Ray would wait forever. A cluster can grow."""
    import ray

    there = ray.cluster_resources()
    workers = config.run.workers
    for name, each in (("CPU", config.run.cpus_per_worker), ("GPU", gpus)):
        if started_here and each * workers > there.get(name, 0.0):
            raise RepriseError(
                f"run.workers: {workers} workers with {each:g} {name} each, but this machine has "
                f"{there.get(name, 0.0):g}: use fewer workers, or give run.address of a cluster"
            )


def _make_paths_absolute(config: TrainConfig) -> TrainConfig:
    """Make local paths absolute: workers have another working directory."""

    def make_absolute(path: str) -> str:
        return str(Path(path).absolute()) if path and "://" not in path and Path(path).exists() else path

    tasks = tuple(task.model_copy(update={"latents": make_absolute(task.latents)}) for task in config.tasks)
    output = config.run.output
    if "://" not in output:
        output = str(Path(output).absolute())
    return config.model_copy(
        update={
            "tasks": tasks,
            "model": config.model.model_copy(update={"path": make_absolute(config.model.path)}),
            "run": config.run.model_copy(update={"output": output}),
        }
    )


def _build_default_callbacks(config: TrainConfig) -> Sequence[Callback]:
    from training.callbacks.build import build_callbacks

    return build_callbacks(config)
