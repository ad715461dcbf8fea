"""The hooks of the loop. What is not the training step itself is a callback: logging, validation, monitors.

Order within step s (0-based; `state.step == s` until the update, s + 1 after it):

    before_step(state, plan)          weights before the update; gradients are empty
      forward, backward, reduction over the workers
    on_gradients(state, plan)         `parameter.grad` is that of the mean loss over all workers, unclipped
      clip, check for NaN, optimizer, EMA
    on_step(state, metrics)           weights after the update
      every `checkpoint.every` steps: save
    on_checkpoint(state, path)        the checkpoint at `path` is complete

Every worker calls every hook of every callback in the same order, so a hook may use collectives, but then
on all workers. What writes files does so on `state.world.is_main` alone. A hook leaves the weights, the
gradients (outside `on_gradients`) and the global random generators as it found them: training with a monitor
on is bit for bit training with it off.
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
        """Everything is ready and a checkpoint, if there is one, is loaded: `state.step` steps are done."""

    def before_step(self, state: RunState, plan: StepPlan) -> None:
        """`plan` says which samples make up the step that follows."""

    def on_gradients(self, state: RunState, plan: StepPlan) -> None:
        """May read or replace the reduced gradients (sharded like the parameters); clipping comes next."""

    def on_step(self, state: RunState, metrics: Mapping[str, float]) -> None:
        """After the update. `metrics` are equal on all workers unless noted:

        loss               mean over all samples of the step (after `loss/<task>` of the one task that ran)
        grad_norm          global norm before clipping          clipped       1 if it was clipped, else 0
        lr                 of this step                         micro_steps   forward passes of each worker
        samples, tokens    of this step, over all workers
        seconds            of this step, on this worker         data_wait     those spent waiting for data
        memory             peak bytes on this worker's GPU during this step; 0 without one
        <task>/<name>      what the task logs, mean over samples
        """

    def on_checkpoint(self, state: RunState, path: str) -> None:
        """A complete checkpoint of `state.step` lies at `path`."""

    def on_end(self, state: RunState, error: BaseException | None) -> None:
        """The run is over, or stops with `error`. Called once, also when other hooks failed."""

    def state_dict(self) -> dict[str, Any]:
        """What this callback needs to resume exactly: tensors (sharded ones included) and plain values.

        Saved in each checkpoint under the class's name; empty: nothing is saved. On resuming it is asked
        first, and what it has then, by name and shape, is what is read.
        """
        return {}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Called before `on_start` with what `state_dict` returned, if the checkpoint has it."""
