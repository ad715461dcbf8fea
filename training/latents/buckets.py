"""Choose the size and the length of a clip, and the frames of it that are encoded. Pure functions.

A bucket is (frames, height, width), in frames and pixels, that a model can take. Height and width are
multiples of the VAE's spatial factor times the transformer's patch. The number of frames is `temporal` n + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reprise.errors import RepriseError
from reprise.video.cover import compute_enlargement
from training.latents.config import BucketsConfig
from training.models.family import ClipLengths

_MIN_MULTIPLES = 4  # minimum length of a side, in multiples of the grid
_MAX_ASPECT_RATIO = 4.0  # of a bucket; frames with a larger aspect ratio are cropped


@dataclass(frozen=True)
class SizeGrid:
    """The sizes that a model can take."""

    multiple: int  # px: spatial factor of the VAE x patch of the transformer
    temporal: int  # frames per latent frame after the first


@dataclass(frozen=True)
class SizeBuckets:
    """The buckets of one config and one model.

    Raises:
        RepriseError: the model cannot take a size or a number of frames of the config.
    """

    config: BucketsConfig
    grid: SizeGrid
    lengths: ClipLengths  # where the config names no others

    def __post_init__(self) -> None:
        for frames in self.frames:
            check_frames(frames, self.grid.temporal)
        for size in self.config.sizes or ():
            height, width = _parse_size(size)
            if height % self.grid.multiple or width % self.grid.multiple:
                near = [
                    max(1, round(side / self.grid.multiple)) * self.grid.multiple for side in (height, width)
                ]
                raise RepriseError(
                    f"buckets.sizes: {size} is no multiple of {self.grid.multiple} px, as this model needs; "
                    f"the nearest is {near[0]}x{near[1]}"
                )
        if not self.config.sizes and self.config.area < (_MIN_MULTIPLES * self.grid.multiple) ** 2:
            least = (_MIN_MULTIPLES * self.grid.multiple) ** 2
            raise RepriseError(
                f"buckets.area: {self.config.area} pixels is too small; this model needs {least}"
            )

    @property
    def frames(self) -> tuple[int, ...]:
        """Numbers of frames, longest first."""
        given = self.config.frames or self.lengths.frames
        return tuple(sorted(set(given), reverse=True))

    @property
    def fps(self) -> float:
        """Frames per second of an encoded clip."""
        return self.config.fps or self.lengths.fps

    def choose_length(self, available: int) -> int | None:
        """Return the largest number of frames that is at most `available`; None if all are larger."""
        return next((frames for frames in self.frames if frames <= available), None)

    def choose_size(self, height: int, width: int) -> tuple[int, int] | str:
        """Choose the bucket for frames of `height` x `width` px.

        Returns:
            (height, width) of the bucket in px, or the reason why no bucket fits.
        """
        if self.config.sizes:
            sizes = [_parse_size(size) for size in self.config.sizes]
            best = find_closest_size(sizes, height, width)
            if compute_enlargement(best, height, width) > self.config.enlarge:
                return "smaller than every size"
            return self._check_crop(best, height, width)
        area = self.config.area
        while area >= (_MIN_MULTIPLES * self.grid.multiple) ** 2:
            best = find_closest_size(list_sizes(area, self.grid.multiple), height, width)
            if compute_enlargement(best, height, width) <= self.config.enlarge:
                return self._check_crop(best, height, width)
            area //= 2
        return "too small"

    def _check_crop(self, size: tuple[int, int], height: int, width: int) -> tuple[int, int] | str:
        ratio = (size[1] / size[0]) / (width / height)
        return "aspect ratio" if 1 - min(ratio, 1 / ratio) > self.config.crop else size


def list_sizes(area: int, multiple: int) -> list[tuple[int, int]]:
    """List all (height, width) in px of at most `area` pixels, with the largest height for each width."""
    found = []
    least = _MIN_MULTIPLES * multiple
    for height in range(least, area // least + 1, multiple):
        width = area // height // multiple * multiple
        if width >= least and max(height / width, width / height) <= _MAX_ASPECT_RATIO:
            found.append((height, width))
    return [(h, w) for h, w in found if not any(other[1] == w and other[0] > h for other in found)]


def find_closest_size(sizes: Sequence[tuple[int, int]], height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) with the nearest aspect ratio; of several, the largest."""
    wanted = math.log(width / height)
    return min(
        sizes, key=lambda size: (round(abs(math.log(size[1] / size[0]) - wanted), 9), -size[0] * size[1])
    )


def check_frames(frames: int, temporal: int) -> None:
    """Check a number of frames against the temporal factor of the VAE.

    Raises:
        RepriseError: the number is not `temporal` n + 1.
    """
    if frames < 1 or (frames - 1) % temporal:
        below = max(0, (frames - 1) // temporal) * temporal + 1
        raise RepriseError(
            f"{frames} frames is not {temporal}n+1, which this VAE needs; the nearest are {below} and "
            f"{below + temporal}"
        )


def find_window_start(available: int, count: int, where: str) -> int:
    """Return the index of the first of `count` frames out of `available`, at "start" or "middle"."""
    return 0 if where == "start" else (available - count) // 2


def get_latent_size(
    frames: int, height: int, width: int, temporal: int, spatial: int
) -> tuple[int, int, int]:
    """Return (T, h, w) of the latent of a video of `frames` x `height` x `width` px."""
    return (frames - 1) // temporal + 1, height // spatial, width // spatial


def _parse_size(size: str) -> tuple[int, int]:
    height, width = size.split("x")
    return int(height), int(width)
