"""Which frames of a tracked subject make its references: good pictures of it that differ from each other.

The first frame is the worst choice twice: subjects enter it half hidden, and a reference taken where the
clip begins teaches a model to copy it. The criterion is greedy: first the frame of highest quality, then
again and again the frame with the highest quality times difference, where difference is the distance in
pose to the nearest frame already chosen. Frames below a share of the best quality are out, and so are near
copies of a chosen one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sighting:
    """One subject in one frame. `frame`: index of the frame in its clip.

    `box`: xyxy pixels. `area`: of the mask, pixels. `sharpness`: any measure that grows with it, at least
    0, the same for all sightings. `border`: share of the mask's outline at the frame's edge, where it is
    cut off, 0..1. `presence`: that it is there at all, 0..1. `embedding`: unit vector of its cut-out; all
    sightings have one, or none is used.
    """

    frame: int
    box: list[float]
    area: float
    sharpness: float
    border: float = 0.0
    presence: float = 1.0
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class FrameChoice:
    """`quality`: 0..1, see `qualities`. `difference`: in pose from the nearest frame chosen before, or 0."""

    frame: int
    quality: float
    difference: float


def choose_frames(
    sightings: Sequence[Sighting], count: int, min_quality: float = 0.5, min_difference: float = 0.05
) -> list[FrameChoice]:
    """At most `count` frames for references, best first; the earlier frame where two are equally good.

    Args:
        sightings: the frames in which the subject is seen, in any order; none gives no choice.
        min_quality: share of the best frame's quality that a further one must reach, 0..1.
        min_difference: smaller differences in pose are the same picture again; see `pose_difference`.
    """
    pool = sorted((each for each in sightings if each.area > 0), key=lambda each: each.frame)
    if not pool or count < 1:
        return []
    quality = rate_sightings(pool)
    use_embeddings = all(each.embedding is not None for each in pool)
    first = int(np.argmax(quality))
    chosen = [FrameChoice(pool[first].frame, float(quality[first]), 0.0)]
    nearest = np.array([measure_pose_difference(pool[first], each, use_embeddings) for each in pool])
    while len(chosen) < count:
        usable = (quality >= min_quality * quality[first]) & (nearest >= max(min_difference, 1e-9))
        if not usable.any():
            break
        best = int(np.argmax(np.where(usable, quality * nearest, -1.0)))
        chosen.append(FrameChoice(pool[best].frame, float(quality[best]), float(nearest[best])))
        further = [measure_pose_difference(pool[best], each, use_embeddings) for each in pool]
        nearest = np.minimum(nearest, further)
    return chosen


def rate_sightings(sightings: Sequence[Sighting]) -> NDArray[np.float64]:
    """Quality of each sighting among its fellows, 0..1: the product of what each of these leaves.

    * size: the square root of its area over the largest one's, its scale in other words;
    * sharpness: over the sharpest one's;
    * being whole: one minus the share of its outline that the frame's edge cuts;
    * presence.
    """
    area = np.sqrt([each.area for each in sightings])
    sharp = np.maximum([each.sharpness for each in sightings], 0.0)
    whole = 1.0 - np.clip([each.border for each in sightings], 0.0, 1.0)
    there = np.clip([each.presence for each in sightings], 0.0, 1.0)
    # Equally blurred sightings, 0 all of them, differ in the rest.
    relative = sharp / sharp.max() if sharp.max() > 0 else np.ones_like(sharp)
    return np.asarray(area / area.max() * relative * whole * there, np.float64)


def measure_pose_difference(left: Sighting, right: Sighting, use_embeddings: bool) -> float:
    """How differently two sightings show the subject, at least 0; where in the frame it is does not count.

    With embeddings: one minus their cosine, 0..2. Without: the change of the box's aspect ratio and half
    that of the share of the box which the mask fills, both as absolute logarithms, so that 0.05 is a change
    of 5 %. A turned or bent subject changes both; one that only comes nearer changes neither.
    """
    if use_embeddings and left.embedding is not None and right.embedding is not None:
        return float(np.clip(1.0 - left.embedding @ right.embedding, 0.0, 2.0))
    shapes = [_measure_shape(each) for each in (left, right)]
    return float(abs(np.log(shapes[0][0] / shapes[1][0])) + 0.5 * abs(np.log(shapes[0][1] / shapes[1][1])))


def _measure_shape(sighting: Sighting) -> tuple[float, float]:
    """Aspect ratio of the box, and the share of it that the mask fills."""
    width = max(1e-6, sighting.box[2] - sighting.box[0])
    height = max(1e-6, sighting.box[3] - sighting.box[1])
    return width / height, max(1e-6, min(1.0, sighting.area / (width * height)))
