"""Propose a few disjoint regions of one frame that could be subjects."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask, compute_box_iou
from curation.models.classical.frame import FrameMaps
from curation.models.classical.regions import (
    MAX_SHARE,
    MIN_SHARE,
    Region,
    close_gaps,
    compute_mask_iou,
    find_components,
    grow_seed,
    measure_inside_share,
)

F32 = NDArray[np.float32]

MAX_REGIONS = 7  # `matching` counts assignments over all sets of them
_MAX_SEEDS = 14  # each costs a GrabCut of about 8 ms
_MOTION_LEVELS = (0.3, 0.45, 0.6, 0.75)  # thresholds, 0..1: parts move at other speeds than the whole
_JOINT_LEVELS = (0.3, 0.45)  # thresholds of the geometric mean of motion and contrast
_SALIENCY_LEVELS = (0.35, 0.55)
_COLOUR_LEVEL = 0.5
_THINNEST = 7.0  # ratio of a box's sides; a standing person has 3 to 4
# Possible error of a seed's outline, px at working size. Flow spreads over half of its patch.
_BLUR = {"motion": 5, "joint": 3, "saliency": 3, "people": 3}


def make_seeds(
    frame: FrameMaps, colours: Sequence[F32], people: Sequence[BoolMask]
) -> list[tuple[BoolMask, str]]:
    """Make rough masks, each with its source: the most reliable sources first, no mask twice."""
    size = frame.salient.size
    low, high = MIN_SHARE * size, MAX_SHARE * size
    found: list[tuple[BoolMask, str]] = []
    for colour in colours:
        named = (colour > _COLOUR_LEVEL).astype(np.uint8)
        opened = cv2.morphologyEx(named, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
        found += [(mask, "colour") for mask in find_components(close_gaps(opened, 3), low, 0.4 * size)[:4]]
    if frame.moving is not None:
        joint = np.sqrt(frame.moving * frame.salient)
        for level in _JOINT_LEVELS:
            found += [
                (mask, "joint") for mask in find_components(close_gaps(joint > level, 5), low, high)[:3]
            ]
        for level in _MOTION_LEVELS:
            found += [
                (mask, "motion")
                for mask in find_components(close_gaps(frame.moving > level, 5), low, high)[:3]
            ]
    found += [(mask, "people") for mask in people]
    for level in _SALIENCY_LEVELS:
        pieces = find_components(close_gaps(frame.salient > level, 5), low, 0.5 * size)[:3]
        found += [(mask, "saliency") for mask in pieces]
    unique: list[tuple[BoolMask, str]] = []
    for mask, source in found:
        if all(compute_mask_iou(mask, other) < 0.8 for other, _ in unique):
            unique.append((mask, source))
    return unique[:_MAX_SEEDS]


def grow_regions(image: RGB, rough: Sequence[tuple[BoolMask, str]]) -> list[Region]:
    """Return each seed unchanged and grown by GrabCut.

    Seeds from colour terms are exact, so they do not grow.
    """
    found = []
    for mask, source in rough:
        shapes = [mask] if source in ("colour", "people") else [_erode_mask(mask, _BLUR[source] - 2)]
        if source != "colour":
            shapes.append(grow_seed(image, mask, _BLUR[source]))
        found += [Region(shape, source) for shape in shapes if _is_region_plausible(shape)]
    return found


def _is_region_plausible(mask: BoolMask) -> bool:
    """Return whether a region is neither a speck nor the whole frame nor a line (a horizon, a pole)."""
    if not MIN_SHARE * mask.size <= mask.sum() <= MAX_SHARE * mask.size:
        return False
    x0, y0, x1, y1 = Region(mask, "").box
    return max(x1 - x0, y1 - y0) <= _THINNEST * min(x1 - x0, y1 - y0)


def select_disjoint(
    candidates: Sequence[Region], fits: Sequence[float], split: bool, separate: set[int]
) -> list[int]:
    """Select the indices of regions that are different things, sorted by `fits`, the best first.

    The better one of two versions of a thing stays.

    Args:
        candidates: the regions.
        fits: how well each outline fits a thing.
        split: several subjects are expected, so two regions replace a region that they form together.
        separate: indices of regions that are no parts of the regions around them.
    """
    order = sorted(range(len(candidates)), key=lambda index: -fits[index])
    if split:
        order = [index for index in order if not _is_made_of_others(index, candidates, fits)]
    kept: list[int] = []
    for index in order:
        if all(_is_different(index, other, candidates, separate) for other in kept):
            kept.append(index)
    return kept[:MAX_REGIONS]


def _erode_mask(mask: BoolMask, width: int) -> BoolMask:
    """Return the mask without its outer `width` pixels; unchanged if nothing would be left."""
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), kernel, borderValue=1).astype(bool)
    return inner if inner.any() else mask


def _is_made_of_others(index: int, candidates: Sequence[Region], fits: Sequence[float]) -> bool:
    whole = candidates[index]
    parts: list[Region] = []
    for other in sorted(range(len(candidates)), key=lambda each: -fits[each]):
        part = candidates[other]
        if other == index or fits[other] < 0.6 * fits[index] or part.area > 0.8 * whole.area:
            continue
        if measure_inside_share(part.mask, whole.mask) > 0.8 and all(
            measure_inside_share(part.mask, p.mask) < 0.1 for p in parts
        ):
            parts.append(part)
    covered = sum(part.area for part in parts)
    return len(parts) > 1 and covered > 0.55 * whole.area and min(p.area for p in parts) > 0.1 * whole.area


def _is_different(left: int, right: int, candidates: Sequence[Region], separate: set[int]) -> bool:
    small, large = sorted((left, right), key=lambda index: candidates[index].area)
    part, whole = candidates[small], candidates[large]
    if small in separate and large not in separate and part.area < 0.5 * whole.area:
        return True
    return (
        compute_mask_iou(part.mask, whole.mask) < 0.3
        and measure_inside_share(part.mask, whole.mask) < 0.5
        and compute_box_iou(part.box, whole.box) < 0.6
    )
