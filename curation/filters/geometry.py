"""Size and overlap of masks (Kaleido 3.2 (4 i) and (4 iii))."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curation.imaging import BoolMask


def area_share(mask: BoolMask) -> float:
    """Mask pixels / frame pixels, 0..1."""
    return float(mask.mean())


def border_share(mask: BoolMask) -> float:
    """Share of the frame's border under the mask, 0..1: a subject cut off by the frame, or background."""
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return float(border.mean())


def overlaps(masks: Sequence[BoolMask]) -> list[tuple[float, float]]:
    """For each mask of one frame: (highest IoU with a larger one, largest share inside a larger one), 0..1.

    Only larger masks count, so that of two that overlap the larger stays (ties: the earlier one).
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
