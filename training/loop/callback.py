"""The hooks of the loop: logging, validation and monitors are callbacks.

Order within step s (0-based; `state.step == s` until the update, s + 1 after it):

    before_step(state, plan)          weights before the update; gradients are empty
      forward, backward, reduction over the workers
    on_gradients(state, plan)         `parameter.grad` is that of the mean loss over all workers, unclipped
      clip, check for NaN, optimizer, EMA
    on_step(state, metrics)           weights after the update
      every `checkpoint.every` steps: save
    on_checkpoint(state, path)        the checkpoint at `path` is complete

Every worker calls every hook of every callback in the same order, so a hook may use collectives, but then
on all workers. A hook writes files only where `state.world.is_main`. A hook leaves the weights, the gradients
(outside `on_gradients`) and the global random generators unchanged: training with a monitor is bit for bit
training without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.data.sampler import StepPlan
    from training.loop.state import RunState


class Callback:
    """Does nothing; subclass it and override what you need."""

    def on_start(self, state: RunState) -> None:
        """Before the first step; a checkpoint, if any, is loaded: `state.step` steps are done."""

    def before_step(self, state: RunState, plan: StepPlan) -> None:
        """Before the step whose samples `plan` names."""

    def on_gradients(self, state: RunState, plan: StepPlan) -> None:
        """After the reduction, before clipping: may read or replace gradients, sharded as parameters."""

    def on_step(self, state: RunState, metrics: Mapping[str, float]) -> None:
        """After the update.

        `metrics` are equal on all workers unless noted:

        loss               mean over all samples of the step (after `loss/<task>` of the one task that ran)
        grad_norm          global norm before clipping          clipped       1 if it was clipped, else 0
        lr                 of this step                         micro_steps   forward passes of each worker
        samples, tokens    of this step, over all workers
        seconds            of this step, on this worker         data_wait     those spent waiting for data
        memory             peak bytes on this worker's GPU during this step; 0 without one
        <task>/<name>      what the task logs, mean over samples
        """

    def on_checkpoint(self, state: RunState, path: str) -> None:
        """After a complete checkpoint of `state.step` was written to `path`."""

    def on_end(self, state: RunState, error: BaseException | None) -> None:
        """After the run, or when it stops with `error`. Called once, also when other hooks failed."""

    def state_dict(self) -> dict[str, Any]:
        """Return what this callback needs to resume exactly: tensors, also sharded, and plain values.

        It is saved in each checkpoint under the class's name; empty: nothing is saved. On resuming it is
        called first: its names and shapes determine what is read.
        """
        return {}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; called before `on_start`, if the checkpoint has it."""
