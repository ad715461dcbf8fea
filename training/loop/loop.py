"""The training loop. It knows no task and no model: both come with the run's state.

What the loop calls is in the files beside it. Callbacks of `training/callbacks` log and validate.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
import yaml
from torch import Tensor

from reprise.errors import RepriseError
from training.data import random_streams
from training.data.sampler import StepPlan
from training.data.samples import Batch
from training.loop import checkpoint, preemption
from training.loop.callback import Callback
from training.loop.optimizer import clip_gradients, compute_learning_rate, set_learning_rate
from training.loop.parallel import set_gradient_sync
from training.loop.preemption import Preempted
from training.loop.shared_output import check_shared_output
from training.loop.state import RunState
from training.loop.world import World

DRAIN_POLL_S = 5.0  # a poll sends one message to every worker


def run_loop(
    state: RunState,
    callbacks: Sequence[Callback] = (),
    *,
    is_draining: Callable[[], bool] | None = None,
    export: Callable[[RunState], object] | None = None,
) -> None:
    """Resume from the newest complete checkpoint, if there is one, and train to the last step. Collective.

    Args:
        state: of a run at step 0, as `training.setup.build_state` makes it.
        callbacks: called in this order at each hook.
        is_draining: whether machines are about to be taken away; see `training.worker.train_model`.
        export: writes the trained model; called after the last step.

    Raises:
        RepriseError: the checkpoint does not fit the run, workers do not share `run.output`, or a loss is
            not finite.
        Preempted: after SIGTERM, with everything saved.
    """
    check_shared_output(state.folder, state.world)
    resumed = checkpoint.resume_run(state, callbacks)
    if state.world.is_main:
        settings = yaml.safe_dump(state.config.model_dump(mode="json"))
        state.folder.root.write_bytes("config.yaml", settings.encode())
    error: BaseException | None = None
    try:
        for callback in callbacks:
            callback.on_start(state)
        _run_steps(state, callbacks, resumed, is_draining)
        if export is not None:
            export(state)
    except BaseException as raised:
        error = raised
        raise
    finally:
        for callback in callbacks:
            callback.on_end(state, error)


def _run_steps(
    state: RunState,
    callbacks: Sequence[Callback],
    saved: int | None,
    is_draining: Callable[[], bool] | None,
) -> None:
    config, world = state.config, state.world
    polled = began = time.perf_counter()
    drained = False
    for step in state.loader.iterate_steps(state.step, config.steps):
        plan = step.plan
        for callback in callbacks:
            callback.before_step(state, plan)

        sums = compute_gradients(state, plan, step)
        for callback in callbacks:
            callback.on_gradients(state, plan)
        norm = clip_gradients(state.model.parameters(), config.optimizer.clip)
        sums.set_flag("preempted", preemption.stop_requested.is_set())
        sums.set_flag("poll", world.is_main and time.perf_counter() - polled > DRAIN_POLL_S)
        totals = sums.sum_over_workers(world, norm)  # the only wait for the GPU in a step
        if totals["broken"] or not totals["finite_norm"]:
            raise _make_loss_error(state, plan, sums, saved)

        rate = compute_learning_rate(config.optimizer, state.step, config.steps)
        set_learning_rate(state.optimizer, rate)
        state.optimizer.step()
        state.optimizer.zero_grad()
        if state.ema is not None:
            state.ema.update_averages()
        state.step += 1

        now = time.perf_counter()
        metrics = _collect_metrics(state, plan, totals, rate) | {
            "seconds": now - began,
            "data_wait": step.wait_seconds,
        }
        began = now
        for callback in callbacks:
            callback.on_step(state, metrics)

        if totals["poll"] and is_draining is not None:
            polled = now
            before, drained = drained, is_draining()
            newly = drained and not before
        else:
            newly = False
        due = state.step % config.checkpoint.every == 0 or state.step == config.steps
        if due or newly or totals["preempted"]:
            path = checkpoint.save_checkpoint(state, callbacks)
            saved = state.step
            for callback in callbacks:
                callback.on_checkpoint(state, path)
            began = time.perf_counter()
        if totals["preempted"] and state.step < config.steps:
            raise Preempted(f"stopped by SIGTERM: step {state.step} is saved in {path}")


@dataclass
class StepSums:
    """What one worker sums over the micro-batches of a step, on the device until the step's end."""

    losses: list[Tensor] = field(default_factory=list)  # (B,) each: this worker's part of each sample's loss
    batches: list[tuple[tuple[int, ...], tuple[str, ...]]] = field(
        default_factory=list
    )  # indices, sample ids
    logged: dict[str, Tensor] = field(default_factory=dict)
    tokens: float = 0.0
    flags: dict[str, float] = field(default_factory=dict)

    def set_flag(self, name: str, value: bool) -> None:
        """Set a flag; its sum is the number of workers that set it."""
        self.flags[name] = float(value)

    def sum_over_workers(self, world: World, norm: Tensor) -> dict[str, float]:
        """Sum losses, what tasks logged, and flags over all workers; by name. Collective."""
        losses = torch.cat(self.losses).double()
        names = ["loss", "broken", "tokens", *self.flags, *sorted(self.logged)]
        known = torch.tensor([self.tokens, *self.flags.values()], dtype=torch.float64).to(
            losses.device, non_blocking=True
        )
        logged = [self.logged[name].double().reshape(1) for name in sorted(self.logged)]
        broken = (~losses.isfinite()).sum().double()
        mine = torch.cat([losses.sum()[None], broken[None], known, *logged])
        ours = world.sum_values(mine)
        norm = norm.double().reshape(1)
        values = torch.cat([ours, norm, norm.isfinite().double()]).tolist()
        return dict(zip([*names, "grad_norm", "finite_norm"], values, strict=True))


def compute_gradients(state: RunState, plan: StepPlan, batches: Iterable[Batch] | None = None) -> StepSums:
    """Compute the gradient of the mean loss over a plan's samples into `parameter.grad`. Collective.

    Args:
        state: of the run.
        plan: samples of all workers.
        batches: this worker's micro-batches of the plan; None: they are read now.
    """
    task = state.tasks[plan.task]
    count = plan.count_micro_steps(state.world.data_size, task.micro_batch)
    if batches is None:
        batches = (state.loader.read_batch(plan, number) for number in range(count))
    sums = StepSums()
    patch = state.family.patch
    for number, batch in enumerate(itertools.islice(batches, count)):
        # Each micro-batch seeds dropout anew, so checkpoints need no state of random generators.
        torch.manual_seed(random_streams.derive_stream_seed(state.config.seed, "dropout", batch.indices[0]))
        set_gradient_sync(
            state.model,
            state.world,
            last=number == count - 1,
            always=state.config.parallel.reduce == "micro_batch",
        )
        losses, logged = task.compute_loss(batch.move_to(state.device), state.context)
        (losses.sum() / len(plan.rows)).backward()
        sums.losses.append(losses.detach())
        sums.batches.append((batch.indices, batch.sample_ids))
        share = len(batch) / len(plan.rows) / state.world.sequence_size
        for name, value in logged.items():
            sums.logged[name] = sums.logged.get(name, 0.0) + value.detach() * share
        sizes = [batch.video.shape[2:], *(reference.shape[2:] for reference in batch.references)]
        tokens = sum(t * h * w for t, h, w in sizes) / (patch[0] * patch[1] * patch[2])
        sums.tokens += len(batch) * tokens / state.world.sequence_size
    return sums


def _collect_metrics(
    state: RunState, plan: StepPlan, totals: dict[str, float], rate: float
) -> dict[str, float]:
    """See `Callback.on_step`."""
    device, task = state.device, state.tasks[plan.task]
    loss = totals["loss"] / len(plan.rows)
    memory = 0.0
    if device.type == "cuda":
        memory = float(torch.cuda.max_memory_allocated(device))
        torch.cuda.reset_peak_memory_stats(device)
    known = {"loss", "broken", "tokens", "preempted", "poll", "grad_norm", "finite_norm"}
    return {
        "loss": loss,
        f"loss/{plan.task}": loss,
        "grad_norm": totals["grad_norm"],
        "clipped": float(totals["grad_norm"] > state.config.optimizer.clip),
        "lr": rate,
        "samples": float(len(plan.rows)),
        "tokens": totals["tokens"],
        "micro_steps": float(plan.count_micro_steps(state.world.data_size, task.micro_batch)),
        "memory": memory,
    } | {f"{plan.task}/{name}": value for name, value in totals.items() if name not in known}


def _make_loss_error(state: RunState, plan: StepPlan, sums: StepSums, saved: int | None) -> RepriseError:
    """The error of a step whose loss or gradient is not finite. Collective."""
    mine = [
        (ids[at], indices[at])
        for losses, (indices, ids) in zip(sums.losses, sums.batches, strict=True)
        for at in (~losses.isfinite()).nonzero().flatten().tolist()
    ]
    everyone: list[list[tuple[str, int]]] = [[] for _ in range(state.world.size)]
    dist.all_gather_object(everyone, mine)
    broken = sorted({pair for several in everyone for pair in several}, key=lambda pair: pair[1])
    size = "x".join(str(side) for side in plan.size)
    batch = f"task {plan.task}, bucket {size}, {plan.references} references, {len(plan.rows)} samples"
    if broken:
        shown = ", ".join(f"{name} (index {index})" for name, index in broken[:8])
        more = f" and {len(broken) - 8} more" if len(broken) > 8 else ""
        what = f"the loss of {shown}{more} is not finite"
    else:
        what = "the gradient is not finite, though every loss is"
    kept = f"the last good checkpoint is step {saved}" if saved else "there is no checkpoint yet"
    return RepriseError(
        f"step {state.step}: {what} ({batch}): stopped before the update; {kept}. Look at these samples, or "
        "lower optimizer.lr"
    )
