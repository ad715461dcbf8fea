"""Frames of any sizes <-> one strip of patches; the part of a strip that one rank of a sequence group has.

Patch embedding has kernel = stride = patch, so any list of patches laid side by side as an image one patch
high is embedded token by token. So a stock transformer takes frames of different sizes in one call, and a
strip can be cut between any two tokens, as sequence parallelism and the dropping of tokens need.

A strip is (B, C, p_t, p_h, p_w * N) for N tokens. Latent sizes are (frames, height, width); token order is
(t, h, w).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reprise.errors import RepriseError

Size = tuple[int, int, int]


def count_patches(size: Sequence[int], patch: Size) -> Size:
    """Count the patches (t, h, w) of latents of `size` (frames, height, width).

    Raises:
        ValueError: `patch` does not divide the size.
    """
    if any(length % step for length, step in zip(size, patch, strict=True)):
        raise ValueError(f"latents of {'x'.join(map(str, size))} cannot be cut into patches of {patch}")
    frames, height, width = (length // step for length, step in zip(size, patch, strict=True))
    return frames, height, width


def pack_strip(frames: Sequence[Tensor], patch: Size) -> Tensor:
    """Lay the patches of tensors (B, C, T_i, H_i, W_i) side by side: (B, C, p_t, p_h, p_w * N).

    Tokens are in (t, h, w) order, tensors in the given order. A batch of 1 is repeated.
    """
    batch = max(part.shape[0] for part in frames)
    p_t, p_h, p_w = patch
    strips = []
    for part in frames:
        t, h, w = count_patches(part.shape[2:], patch)
        cells = part.expand(batch, *part.shape[1:]).reshape(batch, -1, t, p_t, h, p_h, w, p_w)
        strips.append(cells.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, p_t, p_h, t * h * w * p_w))
    return torch.cat(strips, dim=-1)


def unpack_strip(strip: Tensor, sizes: Sequence[Size], patch: Size) -> list[Tensor]:
    """Undo `pack_strip`: tensors (B, C, T_i, H_i, W_i) of the given latent sizes."""
    batch, channels = strip.shape[:2]
    p_t, p_h, p_w = patch
    grids = [count_patches(size, patch) for size in sizes]
    lengths = [math.prod(grid) * p_w for grid in grids]
    frames = []
    for (t, h, w), part in zip(grids, strip.split(lengths, dim=-1), strict=True):
        cells = part.reshape(batch, channels, p_t, p_h, t, h, w, p_w).permute(0, 1, 4, 2, 5, 3, 6, 7)
        frames.append(cells.reshape(batch, channels, t * p_t, h * p_h, w * p_w))
    return frames


def select_tokens(strip: Tensor, tokens: Tensor, patch: Size) -> Tensor:
    """Select tokens of a strip, in the given order: (n,) int64 or, for each sample, (B, n)."""
    cells = strip.unflatten(-1, (-1, patch[2]))
    if tokens.ndim == 1:
        return cells.index_select(-2, tokens).flatten(-2)
    index = tokens[:, None, None, None, :, None].expand(*cells.shape[:4], -1, patch[2])
    return cells.gather(-2, index).flatten(-2)


def slice_tokens(strip: Tensor, tokens: range, patch: Size) -> Tensor:
    """Cut a contiguous range of tokens, which may be empty, out of a strip."""
    return strip.narrow(-1, tokens.start * patch[2], len(tokens) * patch[2])


@dataclass(frozen=True)
class SequenceShard:
    """One rank of a group that shares each sample: it computes one contiguous range of tokens."""

    rank: int
    size: int

    def get_token_range(self, total: int) -> range:
        """Get this rank's part of `total` tokens; the first ranks have one more where they do not divide.

        Raises:
            RepriseError: there are fewer tokens than workers.
        """
        counts = self.count_tokens(total)
        start = sum(counts[: self.rank])
        return range(start, start + counts[self.rank])

    def count_tokens(self, total: int) -> tuple[int, ...]:
        """Count the tokens of each rank of the group.

        Raises:
            RepriseError: there are fewer tokens than workers.
        """
        if total < self.size:
            raise RepriseError(
                f"{total} tokens cannot be shared by {self.size} workers of a sequence group: use a "
                f"`parallel.sequence` of at most {total}, or larger buckets"
            )
        share, rest = divmod(total, self.size)
        return tuple(share + (rank < rest) for rank in range(self.size))


@dataclass(frozen=True)
class SequenceLayout:
    """Places of references and video in the sequence of one sample."""

    sizes: tuple[Size, ...]  # latent sizes, in sequence order
    video_index: int  # which of them is the video
    patch: Size

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Tokens of each part."""
        return tuple(math.prod(count_patches(size, self.patch)) for size in self.sizes)

    @property
    def total_tokens(self) -> int:
        """Tokens of the whole sequence."""
        return sum(self.token_counts)

    @property
    def video_tokens(self) -> range:
        """Tokens of the video, counted from the start of the sequence."""
        start = sum(self.token_counts[: self.video_index])
        return range(start, start + self.token_counts[self.video_index])

    def keep_reference_tokens(self, count: int) -> SequenceLayout:
        """Make the layout where `count` reference tokens are left, as one row of patches."""
        p_t, p_h, p_w = self.patch
        left = ((p_t, p_h, p_w * count),) if count else ()
        return make_layout(left, self.sizes[self.video_index], self.patch, video_first=self.video_index == 0)

    def select_visible_tokens(self, keep: Tensor) -> Tensor:
        """Select the tokens of the sequence that are left when reference tokens are dropped.

        Args:
            keep: (n,) or (B, n) int64, counted over the reference tokens.

        Returns:
            (n + video,) or (B, n + video) int64, counted over the whole sequence.
        """
        video = self.video_tokens
        every = torch.arange(video.start, video.stop, device=keep.device).expand(*keep.shape[:-1], -1)
        if self.video_index == 0:
            return torch.cat([every, keep + len(video)], dim=-1)
        return torch.cat([keep, every], dim=-1)

    def get_own_video(self, shard: SequenceShard) -> range:
        """Get the range of video tokens, counted from the video's first, of this rank; may be empty."""
        own, video = shard.get_token_range(self.total_tokens), self.video_tokens
        start, stop = (min(max(end - video.start, 0), len(video)) for end in (own.start, own.stop))
        return range(start, stop)


def make_layout(
    references: Sequence[Size], video: Size, patch: Size, video_first: bool = False
) -> SequenceLayout:
    """Make the layout [reference 1 | reference 2 | ... | video], or with the video first, of latent sizes."""
    if video_first:
        return SequenceLayout((video, *references), 0, patch)
    return SequenceLayout((*references, video), len(references), patch)
