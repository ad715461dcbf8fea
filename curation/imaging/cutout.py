"""Cut subjects out of pictures. RGBA is (height, width, 4) uint8 with colours not multiplied by opacity."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask, get_mask_box, pad_box

RGBA = NDArray[np.uint8]


def make_cutout(image: RGB, mask: BoolMask, padding: float, feather: float = 1.0) -> tuple[RGB, RGBA]:
    """Cut a masked subject out of its picture.

    Args:
        image: the picture, (H, W, 3).
        mask: the mask of the subject, (H, W).
        padding: margin on each side, share of the box's sides.
        feather: width of the soft edge of the transparency, px.

    Returns:
        The crop, and the same crop with a transparent background.

    Raises:
        ValueError: the mask is empty.
    """
    box = get_mask_box(mask)
    if box is None:
        raise ValueError("the mask is empty")
    x0, y0, x1, y1 = pad_box(box, padding, image.shape[1], image.shape[0])
    crop = np.ascontiguousarray(image[y0:y1, x0:x1])
    alpha = soften_mask(mask[y0:y1, x0:x1], feather)
    return crop, np.dstack([crop, (alpha * 255).round().astype(np.uint8)])


def soften_mask(mask: BoolMask, feather: float) -> NDArray[np.float32]:
    """Turn a mask into opacity 0..1 that falls off inwards over about `feather` px.

    It falls off inwards so that no background is visible. Deeper inside it is exactly 1. The border of the
    picture does not count as an edge: a subject that the border cuts off stays opaque there.
    """
    opaque = mask.astype(np.uint8)
    if feather <= 0:
        return opaque.astype(np.float32)
    inside = cv2.distanceTransform(opaque, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return cast(NDArray[np.float32], np.clip(inside / (1 + feather), 0, 1).astype(np.float32))


def resize_cutout(picture: RGBA, width: int, height: int) -> RGBA:
    """Resize to (width, height) px. Colours are weighted by opacity, so that hidden ones have no effect."""
    smaller = height < picture.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    alpha = picture[..., 3:].astype(np.float32)
    flat = cv2.resize(
        np.dstack([picture[..., :3] * (alpha / 255), alpha]), (width, height), interpolation=how
    )
    opacity = np.clip(flat[..., 3:], 0, 255)
    colour = flat[..., :3] * (255 / np.maximum(opacity, 1))
    return cast(RGBA, np.clip(np.dstack([colour, opacity]).round(), 0, 255).astype(np.uint8))


def composite_over(front: RGBA, back: RGB) -> RGB:
    """Composite an RGBA picture over an RGB picture of the same size."""
    alpha = front[..., 3:].astype(np.float32) / 255
    mixed = front[..., :3] * alpha + back * (1 - alpha)
    return cast(RGB, mixed.round().astype(np.uint8))


def composite_on_white(picture: RGBA) -> RGB:
    """Composite a cut-out on white, so that a comparison of subjects ignores their surroundings."""
    return composite_over(picture, np.full((*picture.shape[:2], 3), 255, np.uint8))
