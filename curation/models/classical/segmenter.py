"""Make a mask from a box: GrabCut at a bounded size, then a guided filter that follows edges at full size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask, clamp_box, compute_box_iou, get_mask_box
from curation.models.classical.regions import fill_holes, get_ring, run_grabcut
from curation.models.roles import Segmentation

F32 = NDArray[np.float32]

_SIDE = 168  # px, long side of the crop while cutting
_CONTEXT = 0.25  # of the box, on every side: the source of the background's colours
_SLACK = 0.04  # of the box: how far the subject may extend beyond it, because boxes are not exact
_ITERATIONS = 5
_EMPTY = 0.1  # of the box; a smaller cut has lost the subject
_THIN = 0.3  # of the box; a walking horse fills 0.35 of its own
_SPECK = 0.08  # pieces smaller than this share of the largest are dropped
_HOLE = 0.05  # holes smaller than this share of the mask are filled
_GUIDE_RADIUS = 3  # px while cutting
_GUIDE_EPSILON = 1e-3  # of squared intensity 0..1; He et al., "Guided image filtering", uses 1e-6 for mattes


class ClassicalSegmenter:
    """roles.Segmenter."""

    name = "classical-segmenter"
    revision = f"1-cv{cv2.__version__}"

    def segment(self, images: Sequence[RGB], boxes: Sequence[Sequence[list[float]]]) -> list[Segmentation]:
        """Segment one thing per box: (H, W) bool masks.

        The score, 0..1, is the difference of the colours on both sides of the outline. It is lower if the
        mask does not fill its box.
        """
        return [
            self._segment_image(image, image_boxes) for image, image_boxes in zip(images, boxes, strict=True)
        ]

    @staticmethod
    def _segment_image(image: RGB, boxes: Sequence[list[float]]) -> Segmentation:
        results = [segment_box(image, box) for box in boxes]
        return Segmentation([mask for mask, _ in results], [score for _, score in results])


def segment_box(image: RGB, box: list[float]) -> tuple[BoolMask, float]:
    """Return the (H, W) mask of the subject in a box, and its score, 0..1."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = clamp_box(box, width, height)
    pad_x, pad_y = max(4, round((x1 - x0) * _CONTEXT)), max(4, round((y1 - y0) * _CONTEXT))
    left, right = max(0, x0 - pad_x), min(width, x1 + pad_x)
    top, bottom = max(0, y0 - pad_y), min(height, y1 + pad_y)
    crop = image[top:bottom, left:right]
    scale = min(1.0, _SIDE / max(crop.shape[:2]))
    size = (max(8, round(crop.shape[1] * scale)), max(8, round(crop.shape[0] * scale)))
    small = cast(RGB, cv2.resize(crop, size, interpolation=cv2.INTER_AREA))
    scale_x, scale_y = size[0] / crop.shape[1], size[1] / crop.shape[0]
    inner = [(x0 - left) * scale_x, (y0 - top) * scale_y, (x1 - left) * scale_x, (y1 - top) * scale_y]
    found = remove_specks(run_grabcut(small, _make_labels(size, inner), _ITERATIONS))
    score = score_separation(small, found)
    if found.sum() < _EMPTY * (inner[2] - inner[0]) * (inner[3] - inner[1]):
        # Foreground and background share their colours, so the middle is fixed as foreground.
        found = remove_specks(run_grabcut(small, _make_labels(size, inner, held=0.45), _ITERATIONS))
        score = 0.5 * score_separation(small, found)
    score *= _score_filling(found, inner)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = _upsample_mask(crop, small, found)
    return mask, score


def remove_specks(mask: BoolMask) -> BoolMask:
    """Return a mask without specks and with small holes filled."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    keep = 1 + np.flatnonzero(areas >= _SPECK * areas.max())
    return fill_holes(np.isin(labels, keep), _HOLE)


def score_separation(image: RGB, mask: BoolMask) -> float:
    """Return 1 - the Bhattacharyya coefficient of the colours inside and just outside a mask, 0..1.

    It is 0 if the inside or the outside is empty.
    """
    band = get_ring(mask, max(3, round(0.15 * float(np.sqrt(mask.sum())))))
    if mask.sum() < 10 or band.sum() < 10:
        return 0.0
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    histograms = []
    for part in (mask, band):
        histogram = cv2.calcHist(
            [lab], [0, 1, 2], part.astype(np.uint8), [8, 16, 16], [0, 256, 0, 256, 0, 256]
        )
        histogram = cv2.GaussianBlur(histogram.reshape(8, 256), (1, 3), 0).reshape(
            8, 16, 16
        )  # lightness bins
        histograms.append(histogram / max(1.0, float(histogram.sum())))
    return float(np.clip(1 - np.sqrt(histograms[0] * histograms[1]).sum(), 0, 1))


def _score_filling(mask: BoolMask, box: list[float]) -> float:
    """Score how well the mask reaches the sides of its box and fills it, 0..1.

    A piece of a subject does not.
    """
    tight = get_mask_box(mask)
    if tight is None:
        return 0.0
    share = float(mask.sum()) / max(1.0, (box[2] - box[0]) * (box[3] - box[1]))
    return min(1.0, compute_box_iou(tight, box) / 0.75) ** 2 * min(1.0, share / _THIN) ** 2


def _make_labels(size: tuple[int, int], inner: list[float], held: float = 0.0) -> NDArray[np.uint8]:
    """Make the start labels of GrabCut: background outside the box, probable foreground on an ellipse in it.

    `held` is the size of the middle that cannot become background, as a share of the box's sides.
    """
    width, height = size
    x0, y0, x1, y1 = inner
    slack_x, slack_y = _SLACK * (x1 - x0), _SLACK * (y1 - y0)
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    outer = clamp_box([x0 - slack_x, y0 - slack_y, x1 + slack_x, y1 + slack_y], width, height)
    labels[outer[1] : outer[3], outer[0] : outer[2]] = cv2.GC_PR_BGD
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    across = (columns - (x0 + x1) / 2) / max(1.0, (x1 - x0) / 2)
    down = (rows - (y0 + y1) / 2) / max(1.0, (y1 - y0) / 2)
    # Subjects fill about two thirds of their boxes; a superellipse of that area is the prior.
    from_middle = np.abs(across) ** 2.5 + np.abs(down) ** 2.5
    labels[(from_middle < 1) & (labels == cv2.GC_PR_BGD)] = cv2.GC_PR_FGD
    labels[from_middle < held**2.5] = cv2.GC_FGD
    return labels


def _upsample_mask(crop: RGB, small: RGB, mask: BoolMask) -> BoolMask:
    """Scale a mask to the crop's size so that its outline follows the edges of the picture.

    Fast guided filter (He and Sun, 2015): the linear model is fitted at the small size and applied at full
    size.
    """
    if crop.shape[:2] == mask.shape:
        return mask
    guide = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    soft = mask.astype(np.float32)
    window = (2 * _GUIDE_RADIUS + 1, 2 * _GUIDE_RADIUS + 1)
    mean_guide, mean_soft = cv2.blur(guide, window), cv2.blur(soft, window)
    variance = cv2.blur(guide * guide, window) - mean_guide**2
    slope = (cv2.blur(guide * soft, window) - mean_guide * mean_soft) / (variance + _GUIDE_EPSILON)
    offset = mean_soft - slope * mean_guide
    size = crop.shape[1::-1]
    slope = cv2.resize(cv2.blur(slope, window), size, interpolation=cv2.INTER_LINEAR)
    offset = cv2.resize(cv2.blur(offset, window), size, interpolation=cv2.INTER_LINEAR)
    full = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    filtered = slope * full + offset
    # The filter decides only within two small pixels of the outline. The cut decides elsewhere.
    kernel = np.ones((5, 5), np.uint8)
    sure = cv2.resize(
        cv2.erode(mask.astype(np.uint8), kernel, borderValue=1), size, interpolation=cv2.INTER_NEAREST
    )
    near = cv2.resize(cv2.dilate(mask.astype(np.uint8), kernel), size, interpolation=cv2.INTER_NEAREST)
    return cast(BoolMask, (sure == 1) | ((near == 1) & (filtered > 0.5)))
