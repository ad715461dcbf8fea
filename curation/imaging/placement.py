"""Choose the place and size of a subject on a plate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from curation.imaging.lift import LiftedSubject, RelativeBox, Side

_HEIGHT_BOUNDS = (0.3, 0.9)  # of the subject's height, share of the plate's
_MAX_WIDTH = 0.9  # of the subject, share of the plate's width
_HEIGHT_JITTER = (0.88, 1.14)
_RESIZE_BOUNDS = (
    0.6,
    1.5,
)  # bounds of the change of size by true heights, relative to the subject's own frame
_BASE_DRIFT = (-0.04, 0.06)  # of the plate's height; the ground stays at about the same height
_MARGIN = 0.02  # of the plate's sides; distance of a subject that was not cut off from the border
_PLACE_ATTEMPTS = 24  # places that are tried if boxes of the plate should stay visible or be hidden


@dataclass(frozen=True)
class PlatePlacement:
    """The used window of the plate, and the subject's box in that window; whole pixels, xyxy."""

    window: tuple[int, int, int, int]
    box: tuple[int, int, int, int]


def choose_height(cut: LiftedSubject, metres: float | None, plate_metres: float | None) -> float:
    """Choose the subject's height as a share of the plate's.

    It starts as the share that the subject had in its own frame, so that a close-up stays a close-up. If both
    true heights are known, it moves half of the way (in octaves) towards the true size on the plate. Bounds
    limit it, because a cat of true size beside a house would be too small for a reference.

    Args:
        cut: the subject.
        metres: its true height, m; None: unknown.
        plate_metres: true height that the plate's full height spans at its subjects' distance, m; None:
            unknown.
    """
    share = cut.box[3] - cut.box[1]
    if metres is None or plate_metres is None or cut.borders:
        return share
    true = metres / plate_metres
    return share * float(np.clip((true / share) ** 0.5, *_RESIZE_BOUNDS))


def place_subject(
    cut: LiftedSubject,
    size: tuple[int, int],
    height: float,
    rng: np.random.Generator,
    avoid: Sequence[RelativeBox] = (),
    cover: Sequence[RelativeBox] = (),
) -> PlatePlacement:
    """Choose the place of the subject in a plate.

    A subject that its own frame cut off stays at that border, as a half-length portrait at the bottom edge.
    If opposite borders cut it off, a window with the aspect of its own frame is taken from the plate. All
    other subjects are completely visible. The ground stays at about the same height.

    Args:
        cut: the subject.
        size: (height, width) of the plate, px.
        height: the height of the subject, share of the plate's height.
        rng: draws size and place.
        avoid: boxes in the plate that should stay visible, as far as possible.
        cover: boxes in the plate that should be hidden, as far as possible.
    """
    tall, wide = size
    if {"left", "right"} <= cut.borders or {"top", "bottom"} <= cut.borders:
        return _place_in_own_frame(cut, size, rng)
    share = float(np.clip(height * rng.uniform(*_HEIGHT_JITTER), *_HEIGHT_BOUNDS))
    aspect = cut.picture.shape[1] / cut.picture.shape[0]
    pixels = min(share * tall, _MAX_WIDTH * wide / aspect)
    h, w = max(1, round(pixels)), max(1, round(pixels * aspect))
    best: tuple[float, tuple[int, int]] | None = None
    for _ in range(_PLACE_ATTEMPTS if avoid or cover else 1):
        left = _choose_left(cut.borders, "left", "right", w, wide, rng.uniform())
        base = cut.box[3] + rng.uniform(*_BASE_DRIFT)
        room = tall - h
        low = round(min(_MARGIN * tall, room / 2))
        free = int(np.clip(round(base * tall) - h, low, room - low))
        top = 0 if "top" in cut.borders else room if "bottom" in cut.borders else free
        covers = _make_cover_function((left / wide, top / tall, (left + w) / wide, (top + h) / tall))
        cost = max(map(covers, avoid), default=0.0) - min(map(covers, cover), default=0.0)
        if best is None or cost < best[0]:
            best = (cost, (left, top))
    assert best is not None
    left, top = best[1]
    return PlatePlacement((0, 0, wide, tall), (left, top, left + w, top + h))


def _choose_left(
    borders: frozenset[Side], first: Side, last: Side, extent: int, room: int, drawn: float
) -> int:
    """Choose the left edge of the subject, px; `drawn` is a random number, 0..1."""
    if first in borders:
        return 0
    if last in borders:
        return room - extent
    margin = min(_MARGIN * room, (room - extent) / 2)
    return round(margin + drawn * (room - extent - 2 * margin))


def _place_in_own_frame(
    cut: LiftedSubject, size: tuple[int, int], rng: np.random.Generator
) -> PlatePlacement:
    tall, wide = size
    h, w = (tall, round(tall * cut.aspect)) if cut.aspect <= wide / tall else (round(wide / cut.aspect), wide)
    h, w = max(1, h), max(1, w)
    x = int(rng.integers(0, wide - w + 1))
    y = int(rng.integers(0, tall - h + 1))
    # A mask that ends a pixel before the border was cut off there, too, so no gap may remain.
    x0, x1 = (0.0 if "left" in cut.borders else cut.box[0]), (1.0 if "right" in cut.borders else cut.box[2])
    y0, y1 = (0.0 if "top" in cut.borders else cut.box[1]), (1.0 if "bottom" in cut.borders else cut.box[3])
    left, top = round(x0 * w), round(y0 * h)
    right, bottom = max(left + 1, round(x1 * w)), max(top + 1, round(y1 * h))
    return PlatePlacement((x, y, x + w, y + h), (left, top, min(right, w), min(bottom, h)))


def _make_cover_function(box: RelativeBox) -> Callable[[RelativeBox], float]:
    """Make a function that maps a box to the share of it that `box` covers, 0..1."""

    def measure_share(other: RelativeBox) -> float:
        across = min(box[2], other[2]) - max(box[0], other[0])
        down = min(box[3], other[3]) - max(box[1], other[1])
        area = (other[2] - other[0]) * (other[3] - other[1])
        return across * down / area if across > 0 and down > 0 and area > 0 else 0.0

    return measure_share
