"""Convert a segmenter's logits to masks in the picture's pixels; every SAM backend uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from curation.imaging.codec import RGB, BoolMask
from curation.models.classical.regions import fill_holes
from curation.models.roles import Segmentation

HOLE_SHARE = 0.01  # of the mask: smaller holes are errors, larger ones belong to the subject (a handle)
ISLAND_SHARE = 0.05  # of the largest piece: a larger one may be the subject's other side behind a pole


def clean_mask(
    mask: BoolMask, hole_share: float = HOLE_SHARE, island_share: float = ISLAND_SHARE
) -> BoolMask:
    """Remove small islands from a mask, then fill small holes; an empty mask stays empty.

    Args:
        mask: (H, W) bool.
        hole_share: holes of at most this share of the mask's area are filled; a hole does not touch the edge.
        island_share: pieces (8-connected) below this share of the largest one's area are dropped.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count == 1:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA]
    keep = areas >= island_share * areas[1:].max()
    keep[0] = False
    return fill_holes(keep[labels], hole_share)


def select_best_masks(
    logits: Tensor,
    scores: Tensor,
    size: tuple[int, int],
    canvas: tuple[int, int] | None = None,
    valid: tuple[int, int] | None = None,
) -> tuple[list[BoolMask], list[float]]:
    """Select each box's mask with the highest predicted score, clean it, and return it with the score, 0..1.

    Args:
        logits: (boxes, candidates, h, w), the decoder's low resolution.
        scores: (boxes, candidates), predicted IoU.
        size: (height, width) of the picture.
        canvas: (height, width) of the model's input, padded to the right and below; None: no padding.
        valid: (height, width) of the picture on that canvas.
    """
    masks: list[BoolMask] = []
    best = scores.argmax(dim=1)
    for row, index in zip(logits, best, strict=True):
        # One box at a time, because all boxes of a large picture would take gigabytes.
        mask = row[index][None, None].float()
        if canvas is not None and valid is not None:
            mask = functional.interpolate(mask, canvas, mode="bilinear", align_corners=False)
            mask = mask[..., : valid[0], : valid[1]]
        mask = functional.interpolate(mask, size, mode="bilinear", align_corners=False)
        masks.append(clean_mask((mask[0, 0] > 0).cpu().numpy()))
    chosen = scores.gather(1, best[:, None])[:, 0].float().clamp(0, 1)
    return masks, [float(score) for score in chosen]


def scale_boxes(
    boxes: list[list[float]], size: tuple[int, int], scaled: tuple[int, int], device: torch.device
) -> Tensor:
    """Scale xyxy boxes of a picture of (height, width) `size` to the model's picture, (n, 4) float32.

    Boxes are cut at the picture's edges, because detectors may exceed them by a fraction of a pixel.
    """
    height, width = size
    limits = torch.tensor([width, height, width, height], dtype=torch.float64)
    scale = torch.tensor([scaled[1] / width, scaled[0] / height] * 2, dtype=torch.float64)
    inside = torch.minimum(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4).clamp(min=0), limits)
    return (inside * scale).to(device, torch.float32)


def skip_without_boxes(
    run: Callable[[Sequence[tuple[RGB, list[list[float]]]]], list[Segmentation]],
) -> Callable[[Sequence[tuple[RGB, Sequence[list[float]]]]], list[Segmentation]]:
    """Segment the pictures that have boxes with `run`; the others get no masks."""

    def segment_items(items: Sequence[tuple[RGB, Sequence[list[float]]]]) -> list[Segmentation]:
        with_boxes = [(image, list(boxes)) for image, boxes in items if len(boxes)]
        found = iter(run(with_boxes) if with_boxes else ())
        return [next(found) if len(boxes) else Segmentation([], []) for _, boxes in items]

    return segment_items
