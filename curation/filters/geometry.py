"""Measure size and overlap of masks (Kaleido 3.2 (4 i) and (4 iii))."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curation.imaging.codec import BoolMask


def measure_area_share(mask: BoolMask) -> float:
    """Measure mask pixels / frame pixels, 0..1."""
    return float(mask.mean())


def measure_border_share(mask: BoolMask) -> float:
    """Measure the share of the frame's border under the mask, 0..1; high for background."""
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return float(border.mean())


def measure_cut_share(mask: BoolMask) -> float:
    """Measure the share of a mask's outline on the frame's edge, 0..1: how much the frame cuts off."""
    height, width = mask.shape
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    outline = mask & ~inner
    edge = np.ones((height, width), bool)
    edge[1:-1, 1:-1] = False
    total = int(outline.sum())
    return float((outline & edge).sum() / total) if total else 0.0


def measure_overlaps(masks: Sequence[BoolMask]) -> list[tuple[float, float]]:
    """Measure each mask's highest IoU with a larger one, and its largest share inside a larger one, 0..1.

    All masks, (H, W), are of one frame. Only larger masks count, so that the larger of two overlapping ones
    stays. Of equal ones the earlier counts as larger.
    """
    areas = [int(mask.sum()) for mask in masks]
    found = []
    for index, mask in enumerate(masks):
        iou = contained = 0.0
        for other, rival in enumerate(masks):
            if (areas[other], -other) <= (areas[index], -index) or areas[index] == 0:
                continue
            inter = int(np.count_nonzero(mask & rival))
            iou = max(iou, inter / (areas[index] + areas[other] - inter))
            contained = max(contained, inter / areas[index])
        found.append((iou, contained))
    return found
