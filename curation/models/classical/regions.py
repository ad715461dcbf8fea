"""Regions of one frame that could be a subject: masks, their pieces, and their growth by GrabCut.

All functions work on a frame at working size (`frame.WORK_SIDE`). Boxes and masks are in its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask

CUT_SIDE = 96  # px, long side of the crop that GrabCut works on: about 10 ms each
MIN_SHARE = 0.003  # of the frame: a tenth of the area threshold, so that no region near the threshold is lost
MAX_SHARE = 0.75
_SPECKLE = 9  # px at WORK_SIDE: a component that is at least as large is kept as a piece of a region


@dataclass(frozen=True)
class Region:
    """A region. `mask`: (h, w) bool at working size. `seed`: motion | joint | colour | saliency | people."""

    mask: BoolMask
    seed: str
    people: float = 0.0  # evidence of a person by a trained detector, 0..1

    @property
    def box(self) -> list[float]:
        """Tight, xyxy."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())


def find_components(mask: BoolMask, min_area: float, max_area: float) -> list[BoolMask]:
    """Find the connected pieces of a mask whose area is in a range, px, the largest first."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")
    return [labels == 1 + index for index in order if min_area <= areas[index] <= max_area and count > 1]


def close_gaps(mask: BoolMask, size: int) -> BoolMask:
    """Close gaps of up to `size` pixels, then fill holes."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return fill_holes(closed.astype(bool))


def fill_holes(mask: BoolMask, largest_share: float = 1.0) -> BoolMask:
    """Fill the holes of a mask, up to `largest_share` of its area. A hole does not touch the border."""
    padded = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(padded, connectivity=4)
    outside = labels[0, 0]
    limit = largest_share * float(mask.sum())
    fill = np.zeros(count, bool)
    for index in range(1, count):
        fill[index] = index != outside and stats[index, cv2.CC_STAT_AREA] <= limit
    return np.asarray(mask | fill[labels][1:-1, 1:-1])


def get_ring(mask: BoolMask, width: int) -> BoolMask:
    """Return the band of `width` pixels around a mask."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    return np.asarray((cv2.dilate(mask.astype(np.uint8), kernel) == 1) & ~mask)


def grow_seed(image: RGB, seed: BoolMask, blur: int, reach: float = 0.3) -> BoolMask:
    """Grow a seed by GrabCut: colours of the seed against the colours around its box.

    Args:
        image: at working size.
        seed: rough mask.
        blur: possible error of the seed's outline, px. Pixels further inside stay foreground whatever their
            colour, because a subject has several colours.
        reach: how far the region may grow beyond the seed's box, as a share of its sides.

    Returns:
        (h, w) bool. The seed itself if the cut is nearly empty or fills almost everything.
    """
    height, width = seed.shape
    rows, columns = np.flatnonzero(seed.any(axis=1)), np.flatnonzero(seed.any(axis=0))
    x0, x1, y0, y1 = int(columns[0]), int(columns[-1] + 1), int(rows[0]), int(rows[-1] + 1)
    pad_x, pad_y = max(8, round((x1 - x0) * reach)), max(8, round((y1 - y0) * reach))
    left, right = max(0, x0 - pad_x), min(width, x1 + pad_x)
    top, bottom = max(0, y0 - pad_y), min(height, y1 + pad_y)
    crop, inner = image[top:bottom, left:right], seed[top:bottom, left:right].astype(np.uint8)
    scale = min(1.0, CUT_SIDE / max(crop.shape[:2]))
    size = (max(8, round(crop.shape[1] * scale)), max(8, round(crop.shape[0] * scale)))
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    small_seed = cv2.resize(inner, size, interpolation=cv2.INTER_NEAREST)
    labels = np.full(small_seed.shape, cv2.GC_PR_BGD, np.uint8)
    labels[small_seed == 1] = cv2.GC_PR_FGD
    # The frame's edge is no outline: a subject that it cuts off is as certain there as in its middle.
    depth = cv2.distanceTransform(np.pad(small_seed, 8, mode="edge"), cv2.DIST_L2, 3)[8:-8, 8:-8]
    labels[depth > min(blur * scale, 0.6 * float(depth.max()))] = cv2.GC_FGD
    # A subject ends within its reach, but it may extend to the edge of the frame.
    rim = max(2, round(0.04 * min(size)))
    if left > 0:
        labels[:, :rim] = cv2.GC_BGD
    if right < width:
        labels[:, -rim:] = cv2.GC_BGD
    if top > 0:
        labels[:rim] = cv2.GC_BGD
    if bottom < height:
        labels[-rim:] = cv2.GC_BGD
    found = run_grabcut(small.astype(np.uint8), labels, 2)
    if not 0.15 < found.sum() / max(1.0, float(small_seed.sum())) < 4:
        return seed
    found = _keep_touching(found, small_seed.astype(bool))
    result = np.zeros_like(seed)
    back = cv2.resize(found.astype(np.uint8), crop.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    result[top:bottom, left:right] = fill_holes(back.astype(bool))
    return result if result.any() else seed


def run_grabcut(image: RGB, labels: NDArray[np.uint8], iterations: int) -> BoolMask:
    """Run GrabCut from a labelled picture. The caller reduces the picture to limit the time."""
    foreground = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    # GrabCut begins with k-means of five colours each for foreground and background.
    if foreground.sum() < 10 or (~foreground).sum() < 10:
        return cast(BoolMask, foreground)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    labels = labels.copy()
    cv2.grabCut(image, labels, cast(Any, None), models[0], models[1], iterations, cv2.GC_INIT_WITH_MASK)
    return cast(BoolMask, (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


def _keep_touching(mask: BoolMask, seed: BoolMask) -> BoolMask:
    """Return the pieces of `mask` that share pixels with `seed`, without specks."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = np.unique(labels[mask & seed])
    keep = keep[stats[keep, cv2.CC_STAT_AREA] >= _SPECKLE]
    return np.isin(labels, keep) & mask


def compute_mask_iou(left: BoolMask, right: BoolMask) -> float:
    """Compute the intersection over union of two masks, 0..1."""
    union = int((left | right).sum())
    return float((left & right).sum() / union) if union else 0.0


def measure_inside_share(part: BoolMask, whole: BoolMask) -> float:
    """Measure the share of `part` that is in `whole`, 0..1."""
    return float((part & whole).sum() / max(1, int(part.sum())))


def get_window(box: list[float], share: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of a box, widened on each side by `share` of its sides and a few pixels."""
    dx, dy = (box[2] - box[0]) * share + 4, (box[3] - box[1]) * share + 4
    rows = slice(max(0, round(box[1] - dy)), min(shape[0], round(box[3] + dy)))
    return rows, slice(max(0, round(box[0] - dx)), min(shape[1], round(box[2] + dx)))
