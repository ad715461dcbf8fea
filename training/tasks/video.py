"""Plain text-to-video: the baseline without references, and pretraining."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import VideoTask
from training.data.samples import SampleChoice, SampleRecord
from training.latents.store import Records
from training.tasks.denoising import DenoisingTask


class TextToVideo(DenoisingTask):
    """Every clip, with or without subjects; references stay on disk."""

    max_references = 0

    def __init__(self, config: VideoTask, name: str = "video") -> None:
        """Take the task's config."""
        super().__init__(config, name)

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        """See `Task.get_capacities`: 0 for every record."""
        return np.zeros(len(records), np.int64)

    def list_variants(self) -> tuple[str, ...]:
        """See `Task.list_variants`: none."""
        return ()

    def get_count_shares(self, capacity: int) -> Mapping[int, float]:
        """See `Task.get_count_shares`: always 0 references."""
        return {0: 1.0}

    def draw_count(self, capacity: int, generator: torch.Generator) -> int:
        """See `Task.draw_count`: 0."""
        return 0

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        """See `Task.choose_references`: none."""
        return SampleChoice((), self.draw_caption_dropout(generator))
