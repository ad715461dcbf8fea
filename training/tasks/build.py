"""The tasks of a config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from training.config import KaleidoTask, TaskConfig
from training.tasks.base import Task
from training.tasks.kaleido import Kaleido
from training.tasks.video import Video


def build_tasks(configs: Sequence[TaskConfig]) -> list[Task]:
    """In the order of the config, named by kind: kaleido, video, and a second of a kind video-2."""
    tasks: list[Task] = []
    seen: Counter[str] = Counter()
    for config in configs:
        seen[config.kind] += 1
        name = config.kind if seen[config.kind] == 1 else f"{config.kind}-{seen[config.kind]}"
        tasks.append(Kaleido(config, name) if isinstance(config, KaleidoTask) else Video(config, name))
    return tasks
