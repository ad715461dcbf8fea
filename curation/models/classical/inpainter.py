"""Fill a mask from its surroundings with Telea's method, at a bounded size, and add the picture's grain.

It is good enough for a background that a subject will cover again. It generates no new content.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask

_FILL_SIDE = 240  # px, long side while filling: Telea's cost grows with the masked area
_FILL_RADIUS = 4  # px while filling
_CONTEXT = 0.35  # of the mask's box, on every side
_GROW = 0.006  # of the frame's diagonal: soft edges and shadows of the subject just outside its mask


class ClassicalInpainter:
    """roles.Inpainter. It ignores prompts."""

    name = "classical-inpainter"
    revision = f"1-cv{cv2.__version__}"
    paints_around = False

    def inpaint(
        self,
        images: Sequence[RGB],
        masks: Sequence[BoolMask],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[RGB]:
        """Replace the pixels under each mask; all other pixels do not change."""
        return [fill_mask(image, mask, seed) for image, mask, seed in zip(images, masks, seeds, strict=True)]


def fill_mask(image: RGB, mask: BoolMask, seed: int) -> RGB:
    """Fill the mask of one picture. If the mask is empty or covers all, the picture is returned unchanged."""
    if not mask.any() or mask.all():
        return image.copy()
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    pad_y = max(16, round((rows[-1] - rows[0]) * _CONTEXT))
    pad_x = max(16, round((columns[-1] - columns[0]) * _CONTEXT))
    top, bottom = max(0, int(rows[0]) - pad_y), min(height, int(rows[-1]) + 1 + pad_y)
    left, right = max(0, int(columns[0]) - pad_x), min(width, int(columns[-1]) + 1 + pad_x)
    crop, hole = image[top:bottom, left:right], mask[top:bottom, left:right]
    # Pixels just outside the mask are mixed with the subject, so they are no source for the filling.
    reach = 2 * round(_GROW * float(np.hypot(height, width))) + 1
    unknown = cv2.dilate(hole.astype(np.uint8), np.ones((reach, reach), np.uint8))
    if unknown.all():
        unknown = hole.astype(np.uint8)
    if unknown.all():
        return image.copy()
    scale = min(1.0, _FILL_SIDE / max(crop.shape[:2]))
    size = (max(4, round(crop.shape[1] * scale)), max(4, round(crop.shape[0] * scale)))
    known = (1 - unknown).astype(np.float32)[..., None]
    # The averages use known pixels only, so that the subject's colours do not enter the filling.
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)[..., None]
    small = cv2.resize(crop.astype(np.float32) * known, size, interpolation=cv2.INTER_AREA)
    small = np.clip(small / np.maximum(weight, 1e-3), 0, 255).astype(np.uint8)
    small_hole = (weight[..., 0] < 0.25).astype(np.uint8)
    filled = cv2.inpaint(small, small_hole, _FILL_RADIUS, cv2.INPAINT_TELEA)
    smooth = cv2.resize(filled, crop.shape[1::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
    patch = np.clip(smooth + _make_grain(crop, unknown == 0, seed), 0, 255).astype(np.uint8)
    result = image.copy()
    result[top:bottom, left:right][hole] = patch[hole]
    return result


def _make_grain(crop: RGB, known: BoolMask, seed: int) -> NDArray[np.float32]:
    """Make noise as strong as in the known pixels (median absolute Laplacian): (h, w, 1), grey levels."""
    laplacian = cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
    strength = min(4.0, float(np.median(np.abs(laplacian[known]))) / 4.5)
    noise = np.random.default_rng(seed).normal(0, strength, known.shape).astype(np.float32)
    return noise[..., None]
