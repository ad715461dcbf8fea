"""Worlds of a few processes on one machine, and what they run: tests of the loop need no Ray and no GPU."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reprise.errors import RepriseError, TransientStorageError
from training.config import TrainConfig
from training.loop.callback import Callback
from training.playground.random_latents import write_latents

TRANSFORMER: dict[str, Any] = {
    "_class_name": "WanTransformer3DModel",
    "_diffusers_version": "0.42.1",
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 2,
    "cross_attn_norm": True,
    "rope_max_seq_len": 128,
}

# Imports once what every worker would; worlds are forked from there and start at once.
_context = mp.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "tests.training.worlds",
        "tests.training.replay_worlds",
        "training.worker",
        "training.callbacks.build",
        "training.gradient_conflict.callback",
        "torch._dynamo",
        "torch.utils._sympy.reference",
        "torch.utils.serialization",
        "diffusers.models.transformers",
        "diffusers.schedulers.scheduling_unipc_multistep",
        # PyArrow imports it to turn columns into numpy's.
        "pandas",
        "pyarrow.dataset",
        # The main module of the tests is imported again by every worker.
        "pytest",
    ]
)


def tiny_model(folder: Path) -> Path:
    """Write a diffusers folder with only the config of a transformer, for `model.init=random`."""
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(TRANSFORMER))
    return folder


def tiny_latents(folder: Path, clips: int = 12) -> str:
    return write_latents(
        folder, clips, sizes=((2, 4, 4), (1, 4, 8)), channels=4, text_width=8, text_length=6
    ).uri


def tiny_config(folder: Path, **changes: Any) -> TrainConfig:
    """A few steps of Kaleido's task on made-up latents; `changes` as dotted keys (`optimizer__ema=0.5`)."""
    if not (folder / "model").exists():
        tiny_model(folder / "model")
        tiny_latents(folder / "latents")
    settings: dict[str, Any] = {
        "seed": 3,
        "steps": 6,
        "model": {"path": str(folder / "model"), "init": "random"},
        "tasks": [
            {"kind": "kaleido", "latents": str(folder / "latents"), "batch": 4, "micro_batch": 1},
        ],
        # Larger than any that would be used: what differs shall show.
        "optimizer": {"lr": 1e-2, "clip": 0.5, "warmup": 2, "schedule": "cosine", "ema": 0.9},
        "compute": {"precision": "fp32", "checkpointing": "none"},
        "checkpoint": {"every": 2, "keep": 2},
        "validation": {"holdout": 0.0},
        "run": {"name": "run", "output": str(folder / "runs")},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            settings[section] = settings.get(section, {}) | {name: value}
        elif section in ("batch", "micro_batch"):
            settings["tasks"][0][section] = value
        else:
            settings[section] = value
    return TrainConfig.model_validate(settings)


def launch(work: Callable[..., Any], workers: int, *args: Any, dies: bool = False) -> list[Any]:
    """Run `work(*args)` in a world of so many processes; what each returned, by rank.

    RepriseError and Preempted are returned, other errors fail the test. With `dies`, processes that are
    killed return None.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes, processes = [], []
    for rank in range(workers):
        receive, send = _context.Pipe(duplex=False)
        variables = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
        process = _context.Process(target=_worker, args=(send, work, rank, workers, port, variables, args))
        process.start()
        send.close()
        pipes.append(receive)
        processes.append(process)
    results: list[Any] = []
    for receive in pipes:
        try:
            results.append(pickle.loads(receive.recv_bytes()) if receive.poll(240) else "no answer")
        except EOFError:
            results.append(None)
    for process in processes:
        process.join(1 if "no answer" in results else 20)
        if process.is_alive():
            process.kill()
    for result in results:
        if isinstance(result, str) or (result is None and not dies):
            raise AssertionError(f"a worker failed: {result}")
    return results


def together(*calls: tuple[Any, ...]) -> list[Any]:
    """Work of several configs in one world: `(work, config, ...)` each; what each returned, in their order.

    A RepriseError is what its call returned: the next one goes on.
    """
    found: list[Any] = []
    for work, *args in calls:
        try:
            found.append(work(*args))
        except RepriseError as error:
            found.append(error)
    return found


def _worker(
    send: Any,
    work: Callable[..., Any],
    rank: int,
    workers: int,
    port: int,
    variables: Mapping[str, str],
    args: Any,
) -> None:
    from training.loop.preemption import Preempted

    torch.set_num_threads(1)
    os.environ.update(
        variables,
        RANK=str(rank),
        WORLD_SIZE=str(workers),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(workers),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        result = (work(*args),)
    except (RepriseError, Preempted) as error:
        result = (error,)
    except BaseException:
        send.send_bytes(pickle.dumps(traceback.format_exc()))
        os._exit(1)
    # By value: tensors sent the usual way would be shared memory of a process that is gone.
    send.send_bytes(pickle.dumps(result[0]))
    os._exit(0)


class Recorder(Callback):
    """Sample ids and losses, step by step."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, ...]] = []
        self.losses: list[float] = []
        self.checkpoints: list[str] = []
        self.metrics: list[dict[str, float]] = []

    def before_step(self, state: Any, plan: Any) -> None:
        self.samples.append((plan.indices[0], *plan.rows))

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        self.losses.append(metrics["loss"])
        self.metrics.append(dict(metrics))

    def on_checkpoint(self, state: Any, path: str) -> None:
        self.checkpoints.append(path)


class Stop(Callback):
    """Ends this process at a step, without a word (SIGKILL) or with a notice (SIGTERM)."""

    def __init__(self, step: int, number: signal.Signals, rank: int | None = None) -> None:
        self.step, self.number, self.rank = step, number, rank

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        if state.step == self.step and self.rank in (None, state.world.rank):
            os.kill(os.getpid(), self.number)


def whole(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Sharded tensors -> whole ones; collective."""
    return {
        name: (t.full_tensor() if hasattr(t, "full_tensor") else t).detach().clone()
        for name, t in tensors.items()
    }


def same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in wanted.items()
    )


def step_gradients(config: TrainConfig, step: int = 0) -> dict[str, Any]:
    """Loss, gradient, and the norms of one step at the initial weights."""
    from training.loop.loop import compute_gradients
    from training.loop.optimizer import clip_gradients
    from training.loop.world import make_world
    from training.setup import build_state

    state = build_state(config, make_world(config.parallel))
    sums = compute_gradients(state, state.sampler.plan_step(step))
    grads = whole({name: p.grad for name, p in state.model.named_parameters()})
    norm = clip_gradients(state.model.parameters(), config.optimizer.clip)
    totals = sums.sum_over_workers(state.world, norm)
    clipped = whole({name: p.grad for name, p in state.model.named_parameters()})
    return {
        "loss": totals["loss"],
        "tokens": totals["tokens"],
        "norm": totals["grad_norm"],
        "gradients": grads,
        "clipped": clipped,
        "weights": whole(dict(state.model.named_parameters())),
        "local": sum(p.to_local().numel() for p in state.model.parameters()),
    }


def count_attention(config: TrainConfig, step: int = 0) -> dict[str, Any]:
    """`step_gradients`, and the number of keys of each self-attention that this worker computed."""
    attend = torch.nn.functional.scaled_dot_product_attention
    lengths: list[int] = []

    def record_attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
        if query.shape[2] == key.shape[2]:  # cross-attention has as many keys as the text has tokens
            lengths.append(key.shape[2])
        return attend(query, key, value, *args, **options)

    torch.nn.functional.scaled_dot_product_attention = record_attention
    try:
        return step_gradients(config, step) | {"lengths": lengths}
    finally:
        torch.nn.functional.scaled_dot_product_attention = attend


def run(config: TrainConfig, *callbacks: Callback, draining: bool = False) -> dict[str, Any]:
    """Train to the end: weights, optimizer, EMA, and what was recorded.

    draining: from the beginning on, machines are about to be taken away.
    """
    from training.loop import loop, preemption
    from training.loop.checkpoint import _collect_tensors
    from training.loop.world import make_world
    from training.worker import train_model

    preemption.install_handler()
    recorder = Recorder()
    loop.DRAIN_POLL_S = 0.0
    state = train_model(
        config, make_world(config.parallel), (recorder, *callbacks), is_draining=lambda: draining
    )
    kept = _collect_tensors(state, ())
    optimizer = {
        f"{name}.{key}": value
        for name, values in kept["optimizer"]["state"].items()
        for key, value in values.items()
    }
    return {
        "weights": whole(kept["model"]),
        "optimizer": whole(optimizer),
        "ema": whole(kept.get("ema", {})),
        "samples": recorder.samples,
        "losses": recorder.losses,
        "checkpoints": recorder.checkpoints,
        "metrics": recorder.metrics,
    }


def run_on_own_disks(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Train where each worker finds another disk under `run.output`."""
    from training.loop import shared_output

    shared_output.WAIT_S = 0.2
    output = str(folder / f"disk-{os.environ['RANK']}")
    return run(config.model_copy(update={"run": config.run.model_copy(update={"output": output})}))


class Weights(Callback):
    """Whole weights after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_start(self, state: Any) -> None:
        self.weights.append(whole(dict(state.model.named_parameters())))

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        self.on_start(state)


class Counter(Callback):
    """Keeps a number through checkpoints."""

    def __init__(self) -> None:
        self.steps, self.resumed_with = 0, 0

    def on_start(self, state: Any) -> None:
        self.resumed_with = self.steps

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.steps = saved["steps"]


def counted(config: TrainConfig) -> int:
    counter = Counter()
    run(config, counter)
    return counter.resumed_with


def drained(config: TrainConfig) -> dict[str, Any]:
    return run(config, draining=True)


def averages(config: TrainConfig) -> dict[str, Any]:
    """Return the weights after each step, the last averages, and weights during and after `use_averages`."""
    from training.loop.world import make_world
    from training.worker import train_model

    weights = Weights()
    state = train_model(config, make_world(config.parallel), (weights,))
    assert state.ema is not None
    ema = whole(state.ema.averages)
    with state.ema.use_averages():
        inside = whole(dict(state.model.named_parameters()))
    after = whole(dict(state.model.named_parameters()))
    return {"weights": weights.weights, "ema": ema, "inside": inside, "after": after}


class FailingCallback(Callback):
    """Records where attempts begin; sends worker 1 SIGTERM once and SIGKILL once, at the given steps."""

    def __init__(self, notes: Path, notice: int, kill: int) -> None:
        self.notes, self.at = notes, {notice: signal.SIGTERM, kill: signal.SIGKILL}

    def on_start(self, state: Any) -> None:
        if state.world.is_main:
            with (self.notes / "starts").open("a") as file:
                file.write(f"{state.step}\n")

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        number = self.at.get(state.step)
        mark = self.notes / f"done-{number}"
        if number is not None and state.world.rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), number)


def make_failing_callbacks(notes: Path, notice: int, kill: int, config: TrainConfig) -> Sequence[Callback]:
    return [FailingCallback(notes, notice, kill)]


class FlakyStorage(Callback):
    """Raise once, at a step, the error of a store that does not respond."""

    def __init__(self, notes: Path, step: int) -> None:
        self.mark, self.step = notes / "flaked", step

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:
        if state.step == self.step and not self.mark.exists():
            self.mark.touch()
            raise TransientStorageError("cannot reach bucket b")


def flaky_storage(notes: Path, step: int, config: TrainConfig) -> Sequence[Callback]:
    return [FlakyStorage(notes, step)]


class Poison(Callback):
    """Makes the loss of one sample of a step NaN."""

    def __init__(self, step: int, place: int) -> None:
        self.step, self.place = step, place

    def before_step(self, state: Any, plan: Any) -> None:
        task = state.tasks[plan.task]
        original = type(task).compute_loss

        def loss(batch: Any, context: Any) -> Any:
            losses, logged = original(task, batch, context)
            bad = [index == plan.indices[self.place] for index in batch.indices]
            return losses.where(~torch.tensor(bad), torch.nan), logged

        task.compute_loss = loss if state.step == self.step else original.__get__(task)


def dies_while_saving(config: TrainConfig, step: int) -> None:
    """Train, and die after the tensors of a checkpoint are written, but before `complete.json` is."""
    from training.loop import checkpoint

    save = checkpoint.dcp.save

    def saving(state: Any, *, storage_writer: Any) -> None:
        save(state, storage_writer=storage_writer)
        if f"step-{step:08d}" in str(storage_writer.path):
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.dcp.save = saving
    run(config)


def exported(config: TrainConfig, folder: Path, shard_bytes: int) -> dict[str, Tensor]:
    """The weights at the start, written as a diffusers folder in files of so many bytes."""
    from training.loop.world import make_world
    from training.models import sharded_weights
    from training.setup import build_state

    sharded_weights.SHARD_BYTES = shard_bytes
    state = build_state(config, make_world(config.parallel))
    sharded_weights.export_weights(state.model, folder, torch.float32, write=True)
    return whole(dict(state.model.named_parameters()))
