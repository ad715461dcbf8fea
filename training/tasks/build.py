"""The tasks of a config."""

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
    """In the order of the config, named by kind: kaleido, video, and a second of a kind video-2."""
    tasks: list[Task] = []
    counts: Counter[str] = Counter()
    for config in configs:
        counts[config.kind] += 1
        name = config.kind if counts[config.kind] == 1 else f"{config.kind}-{counts[config.kind]}"
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
