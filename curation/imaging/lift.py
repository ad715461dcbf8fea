"""Lift a subject from its frame: cut it out without the colours of the old background in its edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask, get_mask_box
from curation.imaging.cutout import RGBA, soften_mask
from curation.imaging.light import SceneLight, measure_light

Side = Literal["left", "top", "right", "bottom"]
F32 = NDArray[np.float32]
RelativeBox = tuple[float, float, float, float]  # xyxy, shares of the picture's width and height

_TOUCH_PX = 2  # segmenters often stop a pixel short of the border
_TOUCH_SHARE = 0.08  # of the subject's extent along a border; a shorter contact does not count as cut off
_RIM = 0.008  # of the subject's longer side; depth of the edge that is mixed with the old background
_RIM_PX = (2.0, 6.0)
_BAND = 0.02  # of the subject's longer side; depth inside its outline in which a mask may be wrong
_BAND_PX = (3, 12)
_MIN_COLOUR_DISTANCE = 24.0  # RGB levels between subject and background; below it the mask decides


@dataclass(frozen=True)
class LiftedSubject:
    """A subject lifted from its frame.

    Attributes:
        picture: tight RGBA crop without the old background's colour in its edge.
        box: its box in the frame, xyxy, shares of the frame's sides.
        aspect: width / height of the frame.
        borders: the borders of the frame that cut it off.
        light: the light of the frame around it.
    """

    picture: RGBA
    box: RelativeBox
    aspect: float
    borders: frozenset[Side]
    light: SceneLight


def lift_subject(image: RGB, mask: BoolMask, feather: float = 1.5) -> LiftedSubject:
    """Lift a masked subject from its frame.

    Args:
        image: the frame, (H, W, 3).
        mask: the mask of the subject, (H, W).
        feather: width of the soft edge, px.

    Raises:
        ValueError: the mask is empty.
    """
    box = get_mask_box(mask)
    if box is None:
        raise ValueError("the mask is empty")
    x0, y0, x1, y1 = (int(side) for side in box)
    height, width = mask.shape
    band = int(np.clip(_BAND * max(x1 - x0, y1 - y0), *_BAND_PX))
    # The crop includes some surroundings, from which the colour of the old background is estimated.
    px, py = max(0, x0 - 3 * band), max(0, y0 - 3 * band)
    near = (slice(py, min(height, y1 + 3 * band)), slice(px, min(width, x1 + 3 * band)))
    picture = remove_halo(image[near], mask[near], estimate_opacity(image[near], mask[near], band), feather)
    around = ~mask
    return LiftedSubject(
        picture=np.ascontiguousarray(picture[y0 - py : y1 - py, x0 - px : x1 - px]),
        box=(x0 / width, y0 / height, x1 / width, y1 / height),
        aspect=width / height,
        borders=find_cut_borders(mask),
        light=measure_light(image, around if around.mean() > 0.05 else None),
    )


def find_cut_borders(mask: BoolMask) -> frozenset[Side]:
    """Find the borders of the frame that cut the subject off."""
    box = get_mask_box(mask)
    if box is None:
        return frozenset()
    wide, tall = box[2] - box[0], box[3] - box[1]
    along: dict[Side, tuple[Any, float]] = {
        "left": (mask[:, :_TOUCH_PX].any(axis=1), tall),
        "right": (mask[:, -_TOUCH_PX:].any(axis=1), tall),
        "top": (mask[:_TOUCH_PX].any(axis=0), wide),
        "bottom": (mask[-_TOUCH_PX:].any(axis=0), wide),
    }
    return frozenset(side for side, (line, extent) in along.items() if line.sum() >= _TOUCH_SHARE * extent)


def estimate_opacity(image: RGB, mask: BoolMask, band: int) -> F32:
    """Estimate opacity, (H, W) 0..1, without the background that a mask holds just inside its outline.

    Within `band` px of the outline, a pixel is a mixture of the subject's colour deeper inside and of the
    background's colour outside. Both colours are local averages. The pixel's share of the subject's colour is
    its opacity. Where the two colours are too similar, the mask decides.
    """
    opaque = mask.astype(np.uint8)
    depth = cv2.distanceTransform(opaque, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    core = depth > band
    if not core.any() or mask.all():
        return mask.astype(np.float32)
    # A soft outline outside the mask is neither subject nor background.
    outside = cv2.dilate(opaque, np.ones((3, 3), np.uint8)) == 0
    colour = image.astype(np.float32)
    front, front_weight = _average_nearby(colour, core, band)
    back, back_weight = _average_nearby(colour, outside, band)
    difference = front - back
    distance = (difference**2).sum(axis=2)
    share = ((colour - back) * difference).sum(axis=2) / np.maximum(distance, 1)
    distinct = (distance > _MIN_COLOUR_DISTANCE**2) & (front_weight > 1e-3) & (back_weight > 1e-3) & ~core
    share = np.where(distinct, np.clip((share - 0.1) / 0.5, 0, 1), 1).astype(np.float32)
    # Texture looks like a mixture, too, so only areas of several pixels count.
    share = np.where(core, 1, cv2.GaussianBlur(share, (0, 0), 1.2))
    return cast(F32, (share * mask).astype(np.float32))


def _average_nearby(colour: F32, where: BoolMask, reach: float) -> tuple[F32, F32]:
    """Return the mean colour of the pixels in `where`, weighted by nearness, and the sum of the weights."""
    weight = where.astype(np.float32)
    total = cv2.GaussianBlur(weight, (0, 0), reach)
    summed = cv2.GaussianBlur(colour * weight[..., None], (0, 0), reach)
    return cast(F32, summed / np.maximum(total, 1e-6)[..., None]), cast(F32, total)


def remove_halo(image: RGB, mask: BoolMask, opacity: F32, feather: float) -> RGBA:
    """Extend the subject's own colour outwards into a soft edge, so that no halo remains.

    Near its outline a subject's pixels are mixed with the background. Within a rim, colour is taken from the
    nearest pixel deeper inside. Parts that are thinner than the rim (hair, spokes) keep their colour.

    Args:
        image: the picture, (H, W, 3).
        mask: the mask of the subject, (H, W).
        opacity: (H, W), 0..1, from `estimate_opacity`.
        feather: width of the soft edge, px.
    """
    # Smoothing removes the steps of masks. Replication keeps the picture's border from being an outline.
    smooth = cv2.GaussianBlur(opacity, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE) > 0.5
    smooth &= mask
    if not smooth.any():
        smooth = mask
    alpha = np.minimum(soften_mask(smooth, feather), np.maximum(opacity, 0.02))
    depth = cv2.distanceTransform(smooth.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    rim = float(np.clip(_RIM * longest, *_RIM_PX))
    core = depth > rim
    colour = image.astype(np.float32)
    if core.any():
        distance, nearest = cv2.distanceTransformWithLabels(
            (~core).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        palette = np.zeros((int(nearest.max()) + 1, 3), np.float32)
        palette[nearest[core]] = colour[core]
        # Nearest neighbours make streaks; a blur over a few pixels removes them.
        carried = np.where(core[..., None], colour, palette[nearest])
        carried = cv2.GaussianBlur(carried, (0, 0), max(1.0, rim / 2))
        amount = np.clip(1 - depth / rim, 0, 1) * (distance < 2.5 * rim)
        colour = colour + amount[..., None] * (carried - colour)
    return cast(RGBA, np.dstack([colour.round().clip(0, 255), (alpha * 255).round()]).astype(np.uint8))
