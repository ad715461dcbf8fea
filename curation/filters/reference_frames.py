"""Choose the frames of a tracked subject for its references: good pictures that differ from each other.

The first frame of a clip is a bad choice for two reasons: subjects are often half hidden there, and a
reference from the start of the clip teaches a model to copy it. The choice is greedy: first the frame of
highest quality, then repeatedly the frame with the highest product of quality and difference. Difference is
the distance in pose to the nearest chosen frame. Frames below a share of the best quality are left out, and
so are near copies of a chosen frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sighting:
    """One subject in one frame.

    Attributes:
        frame: index of the frame in its clip.
        box: xyxy, px.
        area: the area of the mask, px.
        sharpness: any measure that grows with sharpness, at least 0, the same for all sightings.
        border: share of the mask's outline on the frame's edge, which cuts it off, 0..1.
        presence: the tracker's confidence that the subject is in the frame, 0..1.
        embedding: unit vector of its cut-out, (d,) float32; used only if all sightings have one.
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
    """A chosen frame.

    Attributes:
        frame: index of the frame in its clip.
        quality: 0..1, see `rate_sightings`.
        difference: the difference in pose from the nearest frame chosen before; 0 for the first.
    """

    frame: int
    quality: float
    difference: float


def choose_frames(
    sightings: Sequence[Sighting], count: int, min_quality: float = 0.5, min_difference: float = 0.05
) -> list[FrameChoice]:
    """Choose at most `count` frames for references, best first; of two equally good frames the earlier one.

    Args:
        sightings: the frames in which the subject is seen, in any order.
        count: the largest number of frames.
        min_quality: share of the best frame's quality that a further one must reach, 0..1.
        min_difference: frames with a smaller difference in pose are copies; see `measure_pose_difference`.
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
    """Rate each sighting relative to the others, 0..1, by the product of four factors.

    * size: the square root of its area, relative to the largest;
    * sharpness: relative to the sharpest;
    * wholeness: one minus the share of its outline that the frame's edge cuts;
    * presence: as in the sighting.
    """
    area = np.sqrt([each.area for each in sightings])
    sharp = np.maximum([each.sharpness for each in sightings], 0.0)
    whole = 1.0 - np.clip([each.border for each in sightings], 0.0, 1.0)
    there = np.clip([each.presence for each in sightings], 0.0, 1.0)
    # If all sightings have sharpness 0, the other three decide.
    relative = sharp / sharp.max() if sharp.max() > 0 else np.ones_like(sharp)
    return np.asarray(area / area.max() * relative * whole * there, np.float64)


def measure_pose_difference(left: Sighting, right: Sighting, use_embeddings: bool) -> float:
    """Measure the difference in pose of two sightings, at least 0, independent of the place in the frame.

    With embeddings it is one minus their cosine, 0..2. Without them it is |log(a1 / a2)| + 0.5 |log(s1 / s2)|
    for the aspect ratios a of the boxes and the shares s of the boxes that the masks fill, so that 0.05 is a
    change of 5 %. A turned or bent subject changes both. A subject that only comes nearer changes neither.
    """
    if use_embeddings and left.embedding is not None and right.embedding is not None:
        return float(np.clip(1.0 - left.embedding @ right.embedding, 0.0, 2.0))
    shapes = [_measure_shape(each) for each in (left, right)]
    return float(abs(np.log(shapes[0][0] / shapes[1][0])) + 0.5 * abs(np.log(shapes[0][1] / shapes[1][1])))


def _measure_shape(sighting: Sighting) -> tuple[float, float]:
    """Measure the aspect ratio of the box, and the share of the box that the mask fills."""
    width = max(1e-6, sighting.box[2] - sighting.box[0])
    height = max(1e-6, sighting.box[3] - sighting.box[1])
    return width / height, max(1e-6, min(1.0, sighting.area / (width * height)))
