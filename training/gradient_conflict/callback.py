"""Callbacks: gradient conflict of two tasks (proxy replay 3.3.2, Figures 3, 5, 9) and PCGrad (Figure 10)."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from reprise.errors import RepriseError
from training.config import ConflictConfig
from training.gradient_conflict.measure import (
    ALL_PARAMETERS,
    GradientBuffer,
    GradientConflict,
    compare_groups,
    compute_moments,
    get_module_kind,
    make_layer_grouper,
    project_gradients,
)
from training.loop.callback import Callback

if TYPE_CHECKING:
    from training.data.sampler import StepPlan
    from training.loop.state import RunState

MAX_LOOKAHEAD_STEPS = 100_000  # steps among which a task's next one must lie


class ScalarRecorder(Protocol):
    """Something that records numbers of a step."""

    def record_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record numbers of a step."""


def build_conflict_callbacks(config: ConflictConfig, recorder: ScalarRecorder) -> list[Callback]:
    """Build the callbacks of the config: the comparison, then the projection, which changes gradients."""
    found: list[Callback] = []
    if config.every is not None:
        found.append(ConflictMonitor(recorder, config.every, groups=config.groups))
    if config.pcgrad is not None:
        found.append(ProjectGradients(config.pcgrad))
    return found


class ConflictMonitor(Callback):
    """Compares the gradients of two tasks on the same weights every `every` steps.

    The gradient of the step's own task is the one of the update. The other task's is computed besides, over
    the samples of its next step, and reduced over the workers in the same way. This computes one step of the
    other task every `every` steps and changes no number of the training. It records `conflict/cosine`,
    `conflict/norm/<task>`, and the same for each layer group and module kind.

    Args:
        recorder: gets the numbers.
        every: steps between comparisons.
        groups: of layers.
        tasks: names of the two; None: the first two of the run.
    """

    def __init__(
        self, recorder: ScalarRecorder, every: int, *, groups: int = 4, tasks: tuple[str, str] | None = None
    ) -> None:
        self._recorder, self.every, self._groups = recorder, every, groups
        self._tasks = tasks
        self.history: list[tuple[int, GradientConflict]] = []  # of all parameters, in this process

    def on_start(self, state: RunState) -> None:
        """Check that the run has two tasks."""
        names = self._tasks or tuple(itertools.islice(state.tasks, 2))
        if len(names) != 2 or any(name not in state.tasks for name in names):
            raise RepriseError(
                f"the gradient conflict is between two tasks of the run ({', '.join(state.tasks)}); "
                "add one, or set conflict.every=null"
            )
        self._tasks = (names[0], names[1])

    def on_gradients(self, state: RunState, plan: StepPlan) -> None:
        """Compare the gradients of both tasks, if this step is due."""
        if state.step % self.every or self._tasks is None or plan.task not in self._tasks:
            return
        one, other = self._tasks
        own = take_gradients(state)
        try:
            beside = find_next_plan(state, other if plan.task == one else one)
            if beside is None:
                return
            _compute_gradients(state, beside)
            found = take_gradients(state)
        finally:
            restore_gradients(state, own)
        pair = (own, found) if plan.task == one else (found, own)
        groups = [
            make_layer_grouper(len(state.family.list_blocks(state.model)), self._groups),
            get_module_kind,
        ]
        compared = compare_groups(
            sum_moments(state, *(get_local_gradients(gradients) for gradients in pair)), groups
        )
        self.history.append((state.step, compared[ALL_PARAMETERS]))
        scalars: dict[str, float] = {}
        for group, conflict in compared.items():
            prefix = "conflict" if group == ALL_PARAMETERS else f"conflict/{group}"
            scalars[f"{prefix}/cosine"] = conflict.cosine
            scalars[f"{prefix}/norm/{one}"] = conflict.first_norm
            scalars[f"{prefix}/norm/{other}"] = conflict.second_norm
        self._recorder.record_scalars(state.step, scalars)


class ProjectGradients(Callback):
    """PCGrad: removes from each step's gradient what points against the other tasks' recent gradients.

    A step sees one task; the mean of the last `size` gradients replaces each of the others (Figure 10).
    Every worker keeps them whole on the CPU, which suits LoRA.
    """

    def __init__(self, size: int) -> None:
        self.buffer = GradientBuffer(size)
        self.projected = 0  # steps in which the gradient changed

    def on_gradients(self, state: RunState, plan: StepPlan) -> None:
        """Project the step's gradient and buffer the original."""
        parameters = get_trainable(state)
        whole = {name: _gather_gradient(p.grad) for name, p in parameters.items() if p.grad is not None}
        gradients: Mapping[str, Tensor] = whole
        for task in self.buffer.list_other_tasks(plan.task):
            other = self.buffer.average_gradients(task)
            if other is not None:
                projected = project_gradients(gradients, other)
                changed = any(projected[name] is not gradients[name] for name in gradients)
                self.projected += int(changed)
                gradients = projected
        self.buffer.add_gradients(plan.task, whole)
        if gradients is not whole:
            from training.models import sharded_weights

            for name, gradient in gradients.items():
                grad = parameters[name].grad
                if grad is not None:
                    sharded_weights.fill_parameter(gradient.to(grad.dtype), grad)

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer for a checkpoint."""
        # As bytes, because a checkpoint loads into tensors of known shapes, and a buffer starts empty.
        memory = io.BytesIO()
        torch.save(self.buffer.state_dict(), memory)
        return {"buffer": memory.getvalue()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Load the buffer of a checkpoint."""
        self.buffer.load_state_dict(torch.load(io.BytesIO(saved["buffer"]), weights_only=True))


def find_next_plan(state: RunState, task: str) -> StepPlan | None:
    """Find the plan of a task's next step, from this one on; None: there is none.

    A task without its own steps is compared on samples that no step trains on.
    """
    if (watched := state.sampler.plan_watched_step(task, state.step)) is not None:
        return watched
    for step in range(state.step, state.step + MAX_LOOKAHEAD_STEPS):
        plan = state.sampler.plan_step(step)
        if plan.task == task:
            return plan
    return None


def get_trainable(state: RunState) -> dict[str, torch.nn.Parameter]:
    """Return the trained parameters by name."""
    return {name: p for name, p in state.model.named_parameters() if p.requires_grad}


def take_gradients(state: RunState) -> dict[str, Tensor]:
    """Take the gradients from the parameters, which keep none."""
    gradients = {}
    for name, parameter in get_trainable(state).items():
        if parameter.grad is not None:
            gradients[name] = parameter.grad
        parameter.grad = None
    return gradients


def restore_gradients(state: RunState, gradients: Mapping[str, Tensor]) -> None:
    """Give the gradients back to the parameters, in place of those they have."""
    for name, parameter in get_trainable(state).items():
        parameter.grad = gradients.get(name)


def get_local_gradients(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return this worker's shards."""
    return {name: g.to_local() if isinstance(g, DTensor) else g for name, g in gradients.items()}


def sum_moments(
    state: RunState, first: Mapping[str, Tensor], second: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Sum `compute_moments` over all workers, from each worker's shards. Collective."""
    names = sorted(set(first) & set(second))
    found = compute_moments({name: first[name] for name in names}, second)
    if not names:
        return {}
    # Each replica holds the same shards; they count once.
    copies = state.world.mesh["replicate"].size()
    together = torch.stack([found[name] for name in names]).to(state.device)
    state.world.sum_values(together)
    return dict(zip(names, (together / copies).cpu(), strict=True))


def _compute_gradients(state: RunState, plan: StepPlan) -> None:
    from training.loop.loop import compute_gradients

    devices = [state.device.index or 0] if state.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        compute_gradients(state, plan)


def _gather_gradient(gradient: Tensor) -> Tensor:
    whole = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return whole.detach().to("cpu", torch.float32)
