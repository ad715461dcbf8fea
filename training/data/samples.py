"""Plain data that passes between the latents on disk, the sampler, the tasks and the loop.

Latents are normalised: as the transformer sees them. C channels, T latent frames, h x w latent pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

LatentSize = tuple[int, int, int]  # T, h, w in latent units
# Variants that `reprise encode` writes and a task reads; the other variants come from curation.
FRAME_VARIANT = "frame"  # a frame of the clip, encoded as a picture (`frames_alone`)
PAIR_VARIANT = "pair"  # the picture that a pair gives as its reference


@dataclass(frozen=True, slots=True)
class SampleReference:
    """A reference picture of a subject."""

    reference_id: str
    variant: str  # crop | segment | inpaint | redux | crosspair | retrieved | frame
    position: int  # of its latent among the sample's


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject of a sample, with its pictures."""

    subject_id: str
    category: str
    references: tuple[SampleReference, ...]


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One sample of the latents' index; its tensors are still on disk."""

    sample_id: str
    source_id: str  # of the video it was cut from
    shard: str
    size: LatentSize
    caption: str
    subjects: tuple[Subject, ...]


@dataclass(frozen=True, slots=True)
class SampleChoice:
    """What a task drew for one sample."""

    references: tuple[int, ...] = ()  # positions, in the order in which the model sees them
    drop_caption: bool = False


@dataclass(frozen=True, slots=True)
class LatentSample:
    """One sample with its tensors."""

    index: int  # global sample index within the run
    sample_id: str
    video: Tensor  # (C, T, h, w)
    references: tuple[Tensor, ...]  # each (C, 1, h_i, w_i)
    text: Tensor  # (L, D), L its true number of tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of equal shapes."""

    indices: tuple[int, ...]  # global sample indices: what every draw of a sample is seeded with
    sample_ids: tuple[str, ...]
    video: Tensor  # (B, C, T, h, w)
    references: tuple[Tensor, ...]  # each (B, C, 1, h_i, w_i)
    text: Tensor  # (B, L, D), zeros after the last token

    def __len__(self) -> int:
        return len(self.indices)

    def move_to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """Move to a device, without waiting for the copy if the memory is pinned."""

        def move_tensor(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype, non_blocking=True)

        references = tuple(move_tensor(reference) for reference in self.references)
        return replace(
            self, video=move_tensor(self.video), references=references, text=move_tensor(self.text)
        )

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory, from which copies to a GPU overlap with its work."""
        references = tuple(reference.pin_memory() for reference in self.references)
        return replace(
            self, video=self.video.pin_memory(), references=references, text=self.text.pin_memory()
        )


def stack_samples(samples: Sequence[LatentSample], text_length: int) -> Batch:
    """Stack samples of equal shapes to one batch; texts are padded with zeros to `text_length` tokens.

    Raises:
        ValueError: the samples do not have equal shapes: they are not of one bucket.
    """
    shapes = {(s.video.shape, *(reference.shape for reference in s.references)) for s in samples}
    if len(shapes) != 1:
        names = ", ".join(sample.sample_id for sample in samples)
        raise ValueError(f"samples of different shapes in one batch: {names}")
    first = samples[0]
    longest = max([text_length, *(sample.text.shape[0] for sample in samples)])
    text = first.text.new_zeros(len(samples), longest, first.text.shape[1])
    for row, sample in zip(text, samples, strict=True):
        row[: sample.text.shape[0]] = sample.text
    return Batch(
        indices=tuple(sample.index for sample in samples),
        sample_ids=tuple(sample.sample_id for sample in samples),
        video=torch.stack([sample.video for sample in samples]),
        references=tuple(
            torch.stack(several) for several in zip(*(s.references for s in samples), strict=True)
        ),
        text=text,
    )
