"""What a video of the plain stage shows: which thing, moving which way, on what ground. Judged on pixels.

Analysis by synthesis: of all possible things, at all places on a half-cell grid, the judge takes the one
whose drawing explains most of the video. Losses and PSNR would mostly measure the ground, which fills
most of every frame; this judge looks only at the thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from curation.playground.plain import CELLS, HALF, IDENTITIES, WAYS, ThingIdentity, draw_picture

F32 = NDArray[np.float32]
_GRID: Final = 2  # places per cell and axis
_MIN_EXPLAINED: Final = (
    0.5  # share of the pixels that differ from the ground that the best drawing must explain
)
_MIN_CONTRAST: Final = 0.005  # mean square distance from the ground below which a frame counts as empty
PARTS: Final = ("colour", "shape", "texture")  # of an identity
_MIN_MOVE: Final = 1.5  # cells from the first to the last frame below which an object does not move


@dataclass(frozen=True, slots=True)
class ShownThing:
    """What a video shows. Without a recognisable thing `identity`, `way` and `move_cells` are None."""

    identity: ThingIdentity | None
    way: str | None  # None: it does not move, or turns back
    ground: tuple[float, float, float]  # RGB, 0..1
    explained: float  # share of the differing pixels that are this object, at most 1
    move_cells: float | None = (
        None  # cells from the first to the last frame, along the axis of the longer way
    )


@cache
def _build_drawings() -> tuple[F32, F32, F32]:
    """Drawings of each identity at each place.

    Coverage (I, P, pixels), paint x coverage (I, P, pixels, 3), and the places (P, 2), x and y in shares of
    the frame.
    """
    steps = range(round(HALF * CELLS) * _GRID, round((1 - HALF) * CELLS) * _GRID + 1)
    places = [(x, y) for y in steps for x in steps]  # in 1/_GRID cells
    covers, paints = [], []
    for identity in IDENTITIES:
        drawn = {
            (x, y): _draw_identity(identity, x, y) for x in range(_GRID) for y in range(_GRID)
        }  # all others are these, moved by whole cells
        for x, y in places:
            cells = y // _GRID - round(HALF * CELLS), x // _GRID - round(HALF * CELLS)
            cover, paint = (np.roll(each, cells, (0, 1)) for each in drawn[x % _GRID, y % _GRID])
            covers.append(cover.reshape(-1))
            paints.append(paint.reshape(-1, 3))
    shape = len(IDENTITIES), len(places), CELLS * CELLS
    return (
        np.stack(covers).reshape(shape),
        np.stack(paints).reshape(*shape, 3),
        (np.array(places) / (_GRID * CELLS)).astype(np.float32),
    )


def _draw_identity(identity: ThingIdentity, x: int, y: int) -> tuple[F32, F32]:
    """Coverage (12, 12) and paint x coverage (12, 12, 3), x, y half cells from the upper left corner."""
    centre = HALF + x / (_GRID * CELLS), HALF + y / (_GRID * CELLS)
    # The difference between drawings on black and on white is the visible part of the ground.
    black, white = (draw_picture(identity, centre, (tone,) * 3, CELLS)[0] for tone in (0.0, 1.0))
    return (1 - (white - black).mean(-1)).astype(np.float32), black


def judge_video(video: F32) -> ShownThing:
    """Judge a video (T, 12, 12, 3), RGB 0..1, T >= 2."""
    covers, paints, places = _build_drawings()
    frames = np.clip(video, 0, 1).astype(np.float32).reshape(len(video), -1, 3)
    ground = np.median(frames.reshape(-1, 3), axis=0)
    tone = (float(ground[0]), float(ground[1]), float(ground[2]))
    bare = (frames - ground).reshape(len(frames), -1)  # (T, pixels x 3)
    standing_out = float((bare**2).sum())
    # |bare - change|^2 of every drawing at every place in every frame, multiplied out.
    change = (paints - covers[..., None] * ground).reshape(*covers.shape[:2], -1)  # (I, P, pixels x 3)
    errors = (bare**2).sum(1) - 2 * (change @ bare.T) + (change**2).sum(-1)[..., None]  # (I, P, T)
    best = errors.min(axis=1).sum(-1)  # (I,)
    winner = int(best.argmin())
    explained = 1 - float(best[winner]) / max(standing_out, 1e-9)
    if standing_out / frames[..., 0].size < _MIN_CONTRAST or explained < _MIN_EXPLAINED:
        return ShownThing(None, None, tone, explained)
    path = places[errors[winner].argmin(axis=0)]
    return ShownThing(IDENTITIES[winner], find_way(path * CELLS), tone, explained, measure_move(path * CELLS))


def find_way(path: F32) -> str | None:
    """Find the way of a path (T, 2), x and y in cells; None if it does not move or turns back."""
    total = path[-1] - path[0]
    axis = int(np.abs(total).argmax())
    direction = float(np.sign(total[axis]))
    if abs(float(total[axis])) < _MIN_MOVE or (direction * np.diff(path[:, axis])).min() < 0:
        return None
    unit = (direction, 0.0) if axis == 0 else (0.0, direction)
    return next(way for way, step in WAYS.items() if step == unit)


def measure_move(path: F32) -> float:
    """Measure how far a path (T, 2) goes from its first to its last place, along the longer axis."""
    return float(np.abs(path[-1] - path[0]).max())


def is_frozen(shown: ShownThing) -> bool:
    """Return whether an object is visible and does not move; False for an empty or unrecognisable video."""
    return shown.move_cells is not None and shown.move_cells < _MIN_MOVE


def compare_parts(shown: ShownThing, wanted: ThingIdentity) -> dict[str, bool]:
    """Return which `PARTS` of the thing are as wanted; all False if no thing is seen."""
    return {
        part: shown.identity is not None and getattr(shown.identity, part) == getattr(wanted, part)
        for part in PARTS
    }


def compute_likeness(shown: ShownThing, wanted: ThingIdentity) -> float:
    """Return the share of `PARTS` that are right, 0..1. A random thing scores 1/3 on average."""
    right = compare_parts(shown, wanted)
    return sum(right.values()) / len(right)
