"""Measure brightness and sharpness of the subject, not of the frame (Kaleido 3.2 (4 iv))."""

from __future__ import annotations

import cv2
import numpy as np

from curation.imaging.codec import RGB, BoolMask, clamp_box, compute_luma, get_mask_box

# The subject's longer side has this size when sharpness is measured. A blur leaves only detail that any
# resampling keeps, so a photograph gives the same number at the size of the frame and at a smaller one. Below
# about half of this size, detail is lost.
SHARPNESS_SIDE = 256  # px
_BLUR = 1.5  # px at that size, standard deviation
_DARK, _BRIGHT = 8, 247  # 8-bit luma beyond which no detail is left
_ERODE_PX = 3  # so that the edge of the mask does not count as detail


def measure_brightness(image: RGB, mask: BoolMask) -> tuple[float, float]:
    """Measure mean luma, 0..255, and the share of pixels at the ends of its range, 0..1, under the mask."""
    values = compute_luma(image)[mask]
    if values.size == 0:
        return 0.0, 1.0
    return float(values.mean()), float(np.mean((values <= _DARK) | (values >= _BRIGHT)))


def measure_sharpness(image: RGB, mask: BoolMask) -> float:
    """Measure the variance of the Laplacian of blurred luma, at least 0, at the scale of `SHARPNESS_SIDE`.

    The operator is OpenCV's with aperture 3. Photographs in focus give about 50 to 800, and a tenth of that
    once they are blurred by a Gaussian of a hundredth of their side.
    """
    box = get_mask_box(mask)
    if box is None:
        return 0.0
    x0, y0, x1, y1 = clamp_box(box, image.shape[1], image.shape[0])
    scale = SHARPNESS_SIDE / max(x1 - x0, y1 - y0)
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    crop = cv2.resize(compute_luma(image)[y0:y1, x0:x1], size, interpolation=how).astype(np.float32)
    inside = cv2.resize(mask[y0:y1, x0:x1].astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    # Only the subject's own pixels are blurred, because its surroundings must not add detail.
    weight = cv2.GaussianBlur(inside, (0, 0), _BLUR)
    blurred = cv2.GaussianBlur(crop * inside, (0, 0), _BLUR) / np.maximum(weight, 1e-3)
    kernel = np.ones((2 * _ERODE_PX + 1,) * 2, np.uint8)
    core = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    if not core.any():
        core = inside > 0
    return float(cv2.Laplacian(blurred, cv2.CV_32F, ksize=3)[core].var())
