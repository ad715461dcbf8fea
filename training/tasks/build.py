"""The tasks of a config: one class for each kind, names, and shares of the steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from training.config import IdentityTask, KaleidoTask, ReplayTask, TaskConfig, VideoTask
from training.tasks.identity import IdentityInjection
from training.tasks.kaleido import Kaleido
from training.tasks.replay import MotionReplay
from training.tasks.task import Task
from training.tasks.video import TextToVideo


def build_tasks(configs: Sequence[TaskConfig]) -> list[Task]:
    """Build tasks in the order of their configs; the first is named by its kind, the next `video-2`."""
    tasks: list[Task] = []
    counts: Counter[str] = Counter()
    for config in configs:
        counts[config.kind] += 1
        number = counts[config.kind]
        name = config.kind if number == 1 else f"{config.kind}-{number}"
        match config:
            case KaleidoTask():
                tasks.append(Kaleido(config, name))
            case VideoTask():
                tasks.append(TextToVideo(config, name))
            case IdentityTask():
                tasks.append(IdentityInjection(config, name))
            case ReplayTask():
                tasks.append(MotionReplay(config, name))
    return tasks


def share_replay(
    configs: Sequence[TaskConfig], p: float, *, keep_zero_weight: bool = False
) -> tuple[TaskConfig, ...]:
    """Weigh tasks so that replay tasks together have the share `p` of the steps (proxy replay 3.5).

    Among the replay tasks, and among the others, weights stay in proportion. Nothing changes where there are
    no replay tasks, or no others.

    Args:
        configs: of the tasks.
        p: share of the steps that are replay, 0 to 1.
        keep_zero_weight: keep a task whose share is 0. No step trains it, but its gradient can be measured.
    """
    totals = {kind: sum(task.weight for task in configs if task.is_replay == kind) for kind in (True, False)}
    if not totals[True] or not totals[False]:
        return tuple(configs)
    shares = {True: p, False: 1.0 - p}
    weighted = []
    for task in configs:
        kind = task.is_replay
        if shares[kind] > 0 or keep_zero_weight:
            weighted.append(task.model_copy(update={"weight": task.weight / totals[kind] * shares[kind]}))
    return tuple(weighted)
