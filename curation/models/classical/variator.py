"""Make another view of a cut-out subject without a generative model: small seeded changes of shape and light.

By default subjects are not mirrored, because that reverses text and the parting of hair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

RGBA = NDArray[np.uint8]
F32 = NDArray[np.float32]

_TURN = 9.0  # degrees in either direction
_SCALE = (0.88, 1.06)
_PERSPECTIVE = 0.06  # corners move by up to this share of the sides
_BEND = 0.018  # smooth warp, share of the longer side
_GAMMA = (0.82, 1.2)
_WHITE = 0.06  # gain of red against blue
_CONTRAST = (0.9, 1.12)
_LIGHT = 0.18  # gain from one side to the other
_MARGIN = 2  # px kept empty around the result


class ClassicalVariator:
    """roles.Variator. It ignores prompts."""

    name = "classical-variator"
    revision = f"1-cv{cv2.__version__}"

    def __init__(self, flip: bool = False) -> None:
        """`flip`: mirror half of the results; the seed decides which."""
        self.flip = flip

    def vary(
        self, subjects: Sequence[RGBA], prompts: Sequence[str | None], seeds: Sequence[int]
    ) -> list[RGBA]:
        """Rotate, bend and relight each subject, (H, W, 4) straight alpha -> (H', W', 4).

        Nothing is cut off.
        """
        return [vary_subject(subject, seed, self.flip) for subject, seed in zip(subjects, seeds, strict=True)]


def vary_subject(subject: RGBA, seed: int, flip: bool = False) -> RGBA:
    """Vary one subject. Equal seeds give equal results.

    Args:
        subject: (H, W, 4), straight alpha.
        seed: of the random draws.
        flip: mirror half of the results; the seed decides which.
    """
    random = np.random.default_rng(seed)
    mirrored = flip and bool(random.integers(2))
    source = np.ascontiguousarray(subject[:, ::-1]) if mirrored else subject
    columns, rows = _make_warp(source.shape[0], source.shape[1], random)
    # Alpha is premultiplied while resampling, or the colours of transparent pixels would show at the outline.
    alpha = source[..., 3:].astype(np.float32) / 255
    premultiplied = np.dstack([source[..., :3].astype(np.float32) * alpha, alpha])
    edge = cv2.BORDER_CONSTANT
    flat = np.asarray(cv2.remap(premultiplied, columns, rows, cv2.INTER_LINEAR, borderMode=edge))
    reached = flat[..., 3:]
    colour = np.where(reached > 0, flat[..., :3] / np.maximum(reached, 1e-4), 0)
    colour = _change_light(cast(F32, colour.astype(np.float32)), random)
    result = np.dstack([colour, np.clip(reached * 255, 0, 255)])
    return _trim_margins(np.round(result).astype(np.uint8))


def _make_warp(height: int, width: int, random: np.random.Generator) -> tuple[F32, F32]:
    """Make the map from each pixel of the result to the source: its columns and rows, each (H', W').

    The canvas is 1.5 times as large, so that rotation, scale, perspective and bend together stay within it.
    """
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    centre = np.array([width / 2, height / 2], np.float32)
    angle = np.radians(random.uniform(-_TURN, _TURN))
    scale = random.uniform(*_SCALE)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = random.uniform(-_PERSPECTIVE, _PERSPECTIVE, (4, 2)) * (width, height)
    moved = (corners - centre) @ turn.T + shift
    bend = _BEND * max(height, width)
    low = moved.min(axis=0) - bend - _MARGIN
    high = moved.max(axis=0) + bend + _MARGIN
    size = np.ceil(high - low).astype(int)
    forward = cv2.getPerspectiveTransform(corners, (moved - low).astype(np.float32))
    out_columns, out_rows = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    points = np.stack([out_columns.ravel(), out_rows.ravel()], axis=1)[None].astype(np.float64)
    moved_back = cv2.perspectiveTransform(points, np.linalg.inv(np.asarray(forward)))
    back = np.asarray(moved_back, np.float64).reshape(int(size[1]), int(size[0]), 2)
    # Interpolated 4 x 4 random shifts bend without folds.
    for axis in (0, 1):
        coarse = random.uniform(-bend, bend, (4, 4)).astype(np.float32)
        back[..., axis] += np.asarray(
            cv2.resize(coarse, (int(size[0]), int(size[1])), interpolation=cv2.INTER_CUBIC)
        )
    back -= 0.5
    return cast(F32, back[..., 0].astype(np.float32)), cast(F32, back[..., 1].astype(np.float32))


def _change_light(colour: F32, random: np.random.Generator) -> F32:
    """Gamma, contrast, warmth and a soft light from one side; values 0..255 in and out."""
    unit = np.clip(colour / 255, 0, 1) ** random.uniform(*_GAMMA)
    unit = (unit - 0.5) * random.uniform(*_CONTRAST) + 0.5
    warmth = random.uniform(-_WHITE, _WHITE)
    unit = unit * np.array([1 + warmth, 1, 1 - warmth], np.float32)
    height, width = colour.shape[:2]
    angle = random.uniform(0, 2 * np.pi)
    down, across = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    ramp = (np.cos(angle) * across + np.sin(angle) * down) / np.sqrt(2)
    unit = unit * (1 + _LIGHT * random.uniform(0.3, 1) * ramp[..., None])
    return cast(F32, np.clip(unit * 255, 0, 255))


def _trim_margins(subject: RGBA) -> RGBA:
    """Crop to the visible pixels, with an empty margin; unchanged if no pixel is visible."""
    rows, columns = np.flatnonzero(subject[..., 3].any(axis=1)), np.flatnonzero(subject[..., 3].any(axis=0))
    if rows.size == 0:
        return subject
    content = subject[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cast(RGBA, np.pad(content, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0))))
