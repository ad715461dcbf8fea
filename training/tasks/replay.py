"""Motion replay (proxy replay 3.5): image-to-video on plain videos, in place of lost pretraining data.

The reference is a frame of the video itself, so the model could learn to copy it. Two things prevent that:
the frame is drawn, i ~ U(1, T), and a share p_drop of its tokens is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import ReplayTask
from training.data import random_streams
from training.data.samples import FRAME_VARIANT, Batch, SampleChoice, SampleRecord
from training.latents.store import Records
from training.models.family import Conditioning
from training.tasks.denoising import SingleReferenceTask
from training.tasks.task import LossContext


class MotionReplay(SingleReferenceTask):
    """Each sample is a clip with one of its frames as the reference."""

    def __init__(self, config: ReplayTask, name: str = "replay") -> None:
        """Take the choice of frames and the dropout of tokens from the config."""
        super().__init__(config, name)
        self.config = config

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        """See `Task.get_capacities`: 1 for clips with encoded frames, of which at most `videos` are used."""
        usable = np.where(records.count_subjects((FRAME_VARIANT,)) > 0, 1, -1)
        if self.config.videos is not None:
            usable[_list_excess_rows(records, usable, self.config.videos)] = -1
        return usable

    def list_variants(self) -> tuple[str, ...]:
        """See `Task.list_variants`."""
        return (FRAME_VARIANT,)

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        """See `Task.choose_references`: one frame of the clip."""
        drop_caption = self.draw_caption_dropout(generator)
        frames = [r.position for s in record.subjects for r in s.references if r.variant == FRAME_VARIANT]
        # Drawn even where it is not used, so that settings do not change later draws of the generator.
        which = int(torch.randint(len(frames), (), generator=generator))
        chosen = frames[which] if self.config.frame == "random" else min(frames)
        return SampleChoice((chosen,) if count else (), drop_caption)

    def build_conditioning(self, batch: Batch, context: LossContext) -> Conditioning:
        """See `Task.build_conditioning`: a share `token_dropout` of the reference's tokens is dropped."""
        keep = None
        if batch.references and self.config.token_dropout > 0:
            p_h, p_w = context.family.patch[1:]
            height, width = batch.references[0].shape[-2:]
            tokens = (height // p_h) * (width // p_w)
            keep = draw_kept_tokens(batch.indices, tokens, self.config.token_dropout, context.seed)
            keep = keep.to(batch.video.device, non_blocking=True)
        return Conditioning(batch.text, batch.references, keep=keep)

    def count_visible_tokens(self, tokens: int) -> int:
        """See `Task.count_visible_tokens`: those that are not dropped."""
        return count_kept_tokens(tokens, self.config.token_dropout)


def count_kept_tokens(tokens: int, share: float) -> int:
    """Count the tokens that remain when a `share` of them, 0 to 1, is dropped."""
    return tokens - round(share * tokens)


def draw_kept_tokens(indices: Sequence[int], tokens: int, share: float, seed: int) -> Tensor:
    """Draw which tokens of a reference remain when a `share` of them is dropped.

    Each sample loses other tokens, and all lose equally many, because samples of a batch have equal lengths.
    The probability of a token to be dropped is the share (to 1 / tokens).

    Returns:
        (B, n) int64, ascending; n = `count_kept_tokens(tokens, share)`.
    """
    left = count_kept_tokens(tokens, share)
    rows = []
    for index in indices:
        generator = random_streams.make_generator(seed, "token_dropout", index)
        rows.append(torch.randperm(tokens, generator=generator)[:left].sort().values)
    return torch.stack(rows)


def _list_excess_rows(records: Records, usable: NDArray[np.int64], videos: int) -> NDArray[np.int64]:
    """All usable rows but `videos` of them. A larger number of videos contains the smaller one."""
    rows = np.flatnonzero(usable >= 0)
    names = records.get_column("sample_id")
    order = sorted(rows.tolist(), key=lambda row: random_streams.derive_share(names[row], "videos"))
    return np.array(order[videos:], np.int64)
