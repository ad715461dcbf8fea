"""Rotary positions of video and reference tokens: schemes -> integer (t, h, w) -> cos/sin tables.

A reference is a clean frame; only its position distinguishes it from a frame of the video. This module
has every scheme of Kaleido's Tables 2 and 5, and those of the released code. Sizes are (frames, height,
width) in patches, and positions count patches. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from training.config import PositionScheme, PositionsConfig

GridSize = tuple[int, int, int]

RELEASED_SHIFT = (
    80  # Kaleido's released code: where shifted height and width start, whatever the video's size
)


def make_grid_positions(
    size: GridSize, start: GridSize = (0, 0, 0), device: torch.device | str = "cpu"
) -> Tensor:
    """Make the positions of a block of patches in (t, h, w) order, from `start`: (t*h*w, 3) int64."""
    axes = [
        torch.arange(first, first + count, device=device) for first, count in zip(start, size, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def list_reference_starts(count: int, video: GridSize, config: PositionsConfig) -> list[GridSize]:
    """List the position of the first token of each of `count` references, for a video of size `video`.

    i counts references from 0; T, H, W is the video's size; S is 80 (`fixed_80`, released) or the video's
    height and width (`video`, Kaleido Eq. 4).

        none                (i, 0, 0)            Table 2, "Concat"
        shift_w             (i, 0, S)            Table 2
        shift_h             (i, S, 0)            Table 2
        shift_hw            (i, S, S)            Tables 2 and 5, Eq. 4; released default
        no_overlap          (i, S(i+1), S(i+1))  Table 5; released as `overloop: False`
        negative_staggered  (i - n, 0, 0)        Table 5: -3, -2, -1 for three references
        negative_fixed      (-1, 0, 0)           Table 5
        future              (T + i, 0, 0)        Table 5: after the video's last frame
        first_frame         (i, 0, 0)            proxy replay; the video starts at (n, 0, 0), n references

    With `place: after`, i becomes T + i in the first five (released as `end_concat: True`).

    Raises:
        ValueError: `unrotated` and `channel_concat` have no positions of this kind.
    """
    frames, height, width = video
    shift_h, shift_w = (height, width) if config.shift == "video" else (RELEASED_SHIFT, RELEASED_SHIFT)
    first = frames if config.place == "after" else 0
    starts: list[GridSize] = []
    for i in range(count):
        match config.scheme:
            case "none" | "first_frame":
                start = (first + i, 0, 0)
            case "shift_w":
                start = (first + i, 0, shift_w)
            case "shift_h":
                start = (first + i, shift_h, 0)
            case "shift_hw" | "auto":
                start = (first + i, shift_h, shift_w)
            case "no_overlap":
                start = (first + i, shift_h * (i + 1), shift_w * (i + 1))
            case "negative_staggered":
                start = (i - count, 0, 0)
            case "negative_fixed":
                start = (-1, 0, 0)
            case "future":
                start = (frames + i, 0, 0)
            case _:
                raise ValueError(f"references have no start under the scheme {config.scheme}")
        starts.append(start)
    return starts


def make_reference_positions(
    references: Sequence[GridSize],
    video: GridSize,
    config: PositionsConfig,
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """Make the positions of each reference's tokens, of its own size: a list of (tokens, 3) int64.

    `unrotated` (released as `shiftT: False`) rotates no reference token: all have the position (0, 0, 0).
    """
    if config.scheme == "unrotated":
        return [
            torch.zeros(frames * height * width, 3, dtype=torch.int64, device=device)
            for frames, height, width in references
        ]
    starts = list_reference_starts(len(references), video, config)
    return [make_grid_positions(size, start, device) for size, start in zip(references, starts, strict=True)]


def make_sequence_positions(
    references: Sequence[GridSize],
    video: GridSize,
    config: PositionsConfig,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Make the positions of the whole sequence, references before or after the video: (tokens, 3) int64."""
    clean = make_reference_positions(references, video, config, device)
    first = len(references) if config.scheme == "first_frame" else 0
    noisy = make_grid_positions(video, (first, 0, 0), device)
    return torch.cat([noisy, *clean] if config.place == "after" else [*clean, noisy])


def convert_released_config(
    shiftT: bool = True,
    shiftH: bool = True,
    shiftW: bool = True,
    overloop: bool = True,
    rope_continue: bool = False,
    end_concat: bool = False,
) -> PositionsConfig:
    """Convert a setting of Kaleido's released yaml to named options; the defaults are the released setting.

    Raises:
        ValueError: `overloop: False` with one shifted axis, the only combination without a name.
    """
    shifted: dict[tuple[bool, bool], PositionScheme] = {
        (False, False): "none",
        (False, True): "shift_w",
        (True, False): "shift_h",
        (True, True): "shift_hw",
    }
    scheme = shifted[shiftH, shiftW]
    if not shiftT:
        scheme = "unrotated"
    elif not overloop and scheme != "none":
        if scheme != "shift_hw":
            raise ValueError("overloop: False with only one of shiftH and shiftW has no name")
        scheme = "no_overlap"
    return PositionsConfig(
        scheme=scheme,
        shift="video" if rope_continue else "fixed_80",
        place="after" if end_concat else "before",
    )


def split_wan_head(head_dim: int) -> GridSize:
    """Split a head's channels over t, h and w as Wan does: h = w = 2 floor(d / 6), t the rest."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def make_rotary_tables(
    positions: Tensor,
    split: GridSize,
    theta: float = 10_000.0,
    angles: torch.dtype = torch.float32,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Make cos and sin, one value per pair of channels: two (tokens, head_dim / 2) tensors.

    The angle of pair k of an axis with d channels is position / theta^(2k / d).

    Args:
        positions: (tokens, 3) of any number type; they may be fractional.
        split: channels of a head for t, h, w; each even, sum = head_dim.
        theta: base of the frequencies.
        angles: precision of position x frequency. float32 equals the released code bit for bit, float64 is
            what diffusers' stock Wan uses; the two differ by 5e-7.
        dtype: of the tables. They stay float32 in bf16 runs, too; the released code casts them to the type of
            q and k.
    """
    parts = []
    for axis, channels in enumerate(split):
        exponent = torch.arange(0, channels, 2, device=positions.device).to(angles) / channels
        frequencies = 1.0 / (theta**exponent)
        parts.append(positions[:, axis, None].to(angles) * frequencies)
    angle = torch.cat(parts, dim=-1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


CropFormula = Literal["diffusers", "released"]


def split_cogvideox_head(head_dim: int) -> GridSize:
    """Split a head's channels over t, h and w as CogVideoX does: t = d / 4, h = w = 3 d / 8."""
    spatial = head_dim // 8 * 3
    return head_dim // 4, spatial, spatial


def get_crop_region(grid: tuple[int, int], base: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Fit a grid (height, width) of patches into the base grid, centred.

    Returns:
        ((top, left), (bottom, right)) in patches of the base grid. A 3:2 grid fills CogVideoX's base of
        30 x 45: ((0, 0), (30, 45)).
    """
    (height, width), (base_height, base_width) = grid, base
    if height / width > base_height / base_width:
        size = base_height, round(base_height / height * width)
    else:
        size = round(base_width / width * height), base_width
    top, left = (round((whole - part) / 2.0) for whole, part in zip(base, size, strict=True))
    return (top, left), (top + size[0], left + size[1])


def make_cogvideox_positions(
    size: GridSize,
    first: int,
    base: tuple[int, int],
    crop: CropFormula = "diffusers",
    device: torch.device | str = "cpu",
) -> Tensor:
    """Make the positions of a block of patches whose first frame is frame `first`: (t*h*w, 3) float32.

    Frames are counted; rows and columns are spread over `get_crop_region` of the `base` grid (height,
    width). The k-th of n, k = 0..n-1, between start and stop lies at

        released    start + (stop - start) k / n                      older diffusers, released proxy replay
        diffusers   start + (stop (n - 1) / n - start) k / (n - 1)    diffusers today

    which are equal where start is 0. At CogVideoX's 3:2 it is 0 on both axes.
    """
    frames, height, width = size
    (top, left), (bottom, right) = get_crop_region((height, width), base)

    def space_axis(start: int, stop: int, count: int) -> Tensor:
        last = (
            start + (stop - start) * (count - 1) / count if crop == "released" else stop * (count - 1) / count
        )
        return torch.linspace(start, last, count, dtype=torch.float64, device=device)

    time = torch.arange(first, first + frames, dtype=torch.float64, device=device)
    axes = torch.meshgrid(
        time, space_axis(top, bottom, height), space_axis(left, right, width), indexing="ij"
    )
    return torch.stack(axes, dim=-1).reshape(-1, 3).float()
