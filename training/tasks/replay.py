"""Motion kept alive (proxy replay 3.5): image-to-video on plain videos, in place of lost pretraining data.

The reference is a frame of the video itself, so the easy way out is to copy it. Two things make that fail: it
is any frame (i ~ U(1, T)) and part of its tokens is dropped (p_drop).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import ReplayTask as Config
from training.data import random_streams
from training.data.samples import Batch, LatentSample, SampleChoice, SampleRecord, stack_samples
from training.latents.store import Records
from training.tasks.denoising import denoising_loss
from training.tasks.task import LossContext, Losses

if TYPE_CHECKING:
    from training.models.family import Conditioning

FRAME_VARIANT = "frame"  # variant of a clip's own frames, encoded alone: `frames_alone` of reprise encode


class MotionReplay:
    """Each sample is a clip with one of its frames as the reference."""

    def __init__(self, config: Config, name: str = "replay") -> None:
        self.name = name
        self.latents, self.weight = config.latents, config.weight
        self.batch, self.micro_batch = config.batch, config.micro_batch
        self.config = config

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        usable = np.where(records.count_subjects((FRAME_VARIANT,)) > 0, 1, -1)
        if self.config.videos is not None:
            usable[_list_excess_rows(records, usable, self.config.videos)] = -1
        return usable

    def list_variants(self) -> tuple[str, ...]:
        return (FRAME_VARIANT,)

    def draw_count(self, capacity: int, generator: torch.Generator) -> int:
        dropped = float(torch.rand((), generator=generator)) < self.config.reference_dropout
        return 0 if dropped else capacity

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        drop_caption = float(torch.rand((), generator=generator)) < self.config.caption_dropout
        frames = [r.position for s in record.subjects for r in s.references if r.variant == FRAME_VARIANT]
        # Drawn whether it is needed or not: a setting does not move the draws after it.
        which = int(torch.randint(len(frames), (), generator=generator))
        chosen = frames[which] if self.config.frame == "random" else min(frames)
        return SampleChoice((chosen,) if count else (), drop_caption)

    def collate_samples(self, samples: Sequence[LatentSample], text_length: int) -> Batch:
        return stack_samples(samples, text_length)

    def build_conditioning(self, batch: Batch, context: LossContext) -> Conditioning:
        from training.models.family import Conditioning

        keep = None
        if batch.references and self.config.token_dropout > 0:
            p_h, p_w = context.family.patch[1:]
            height, width = batch.references[0].shape[-2:]
            tokens = (height // p_h) * (width // p_w)
            keep = draw_kept_tokens(batch.indices, tokens, self.config.token_dropout, context.seed)
            keep = keep.to(batch.video.device, non_blocking=True)
        return Conditioning(batch.text, batch.references, keep=keep)

    def compute_loss(self, batch: Batch, context: LossContext) -> Losses:
        return denoising_loss(batch, context, self.build_conditioning(batch, context))


def draw_kept_tokens(indices: Sequence[int], tokens: int, share: float, seed: int) -> Tensor:
    """(B, n) int64, ascending: which of a reference's tokens are left when a `share` of them is dropped.

    Every sample loses other tokens and equally many, n = tokens - round(share * tokens), because samples of a
    batch must be of one length. For each token the probability of being dropped is the share (to 1 / tokens).
    """
    left = tokens - round(share * tokens)
    rows = []
    for index in indices:
        generator = random_streams.make_generator(seed, "token_dropout", index)
        rows.append(torch.randperm(tokens, generator=generator)[:left].sort().values)
    return torch.stack(rows)


def _list_excess_rows(records: Records, usable: NDArray[np.int64], videos: int) -> NDArray[np.int64]:
    """All usable rows but `videos` of them. More videos are the fewer ones and others besides."""
    rows = np.flatnonzero(usable >= 0)
    names = records.get_column("sample_id")
    order = sorted(rows.tolist(), key=lambda row: random_streams.derive_share(names[row], "videos"))
    return np.array(order[videos:], np.int64)
