"""The tasks of a config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from training.config import IdentityTask, KaleidoTask, ReplayTask, TaskConfig, VideoTask
from training.tasks.base import Task
from training.tasks.identity import Identity
from training.tasks.kaleido import Kaleido
from training.tasks.replay import Replay
from training.tasks.video import Video


def build_tasks(configs: Sequence[TaskConfig]) -> list[Task]:
    """In the order of the config, named by kind: kaleido, video, and a second of a kind video-2."""
    tasks: list[Task] = []
    seen: Counter[str] = Counter()
    for config in configs:
        seen[config.kind] += 1
        name = config.kind if seen[config.kind] == 1 else f"{config.kind}-{seen[config.kind]}"
        match config:
            case KaleidoTask():
                tasks.append(Kaleido(config, name))
            case VideoTask():
                tasks.append(Video(config, name))
            case IdentityTask():
                tasks.append(Identity(config, name))
            case ReplayTask():
                tasks.append(Replay(config, name))
    return tasks
