"""Brightness and blur of the subject, not of the frame (Kaleido 3.2 (4 iv))."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from curation.imaging import RGB, BoolMask, clamp_box, luma, mask_box

# Sharpness is measured with the subject's longer side at this size: the same photograph gives the same number
# whether it fills the frame or a corner of it. Smaller subjects are not enlarged: that would invent blur.
SHARPNESS_SIDE = 256
_DARK, _BRIGHT = 8, 247  # 8-bit luma beyond which no detail is left
_ERODE_PX = 3  # the mask's own edge must not count as detail


def brightness(image: RGB, mask: BoolMask) -> tuple[float, float]:
    """(mean luma 0..255, share of pixels at the ends of the range 0..1) under the mask."""
    values = luma(image)[mask]
    if values.size == 0:
        return 0.0, 1.0
    return float(values.mean()), float(np.mean((values <= _DARK) | (values >= _BRIGHT)))


def sharpness(image: RGB, mask: BoolMask) -> float:
    """Variance of the Laplacian of luma under the mask, the subject scaled down to `SHARPNESS_SIDE` px."""
    box = mask_box(mask)
    if box is None:
        return 0.0
    x0, y0, x1, y1 = clamp_box(box, image.shape[1], image.shape[0])
    crop, inside = luma(image)[y0:y1, x0:x1], mask[y0:y1, x0:x1].astype(np.uint8)
    scale = SHARPNESS_SIDE / max(crop.shape)
    if scale < 1:
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        crop = cast(RGB, cv2.resize(crop, size, interpolation=cv2.INTER_AREA))
        inside = cast(RGB, cv2.resize(inside, size, interpolation=cv2.INTER_NEAREST))
    kernel = np.ones((2 * _ERODE_PX + 1,) * 2, np.uint8)
    core = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    if not core.any():
        core = inside > 0
    return float(cv2.Laplacian(crop, cv2.CV_32F)[core].var())
