"""Composite a subject into another picture with matching size, light and shadow (Kaleido A.1, cross-pairs).

Pure functions over arrays: RGB uint8 (H, W, 3), RGBA uint8 (H, W, 4) whose colours are not multiplied by
opacity, masks bool (H, W). Equal seeds give equal pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB
from curation.imaging.cutout import RGBA, composite_over, resize_cutout
from curation.imaging.lift import LiftedSubject, RelativeBox
from curation.imaging.light import measure_light, relight_subject
from curation.imaging.placement import choose_height, place_subject

F32 = NDArray[np.float32]

_SHADOW_OPACITY = 0.4  # greatest opacity of a shadow
_SHADOW_HEIGHT = 0.16  # height of a shadow on the ground, share of the subject's height


def composite_subject(
    cut: LiftedSubject,
    plate: RGB,
    rng: np.random.Generator,
    *,
    metres: float | None = None,
    plate_metres: float | None = None,
    avoid: Sequence[RelativeBox] = (),
    cover: Sequence[RelativeBox] = (),
    casts_shadow: bool = False,
) -> RGB:
    """Put the subject on the plate, or on the window of the plate that the subject needs.

    Args:
        cut: the subject.
        plate: the picture behind it, (H, W, 3).
        rng: draws size and place.
        metres: true height of the subject, m; see `placement.choose_height`.
        plate_metres: true height of the plate, m; see `placement.choose_height`.
        avoid: boxes in the plate that should stay visible.
        cover: boxes in the plate that should be hidden.
        casts_shadow: whether the subject stands on the ground and casts a shadow.

    Returns:
        The picture of the plate or its window, (h, w, 3).
    """
    spot = place_subject(cut, plate.shape[:2], choose_height(cut, metres, plate_metres), rng, avoid, cover)
    x0, y0, x1, y1 = spot.window
    scene = np.ascontiguousarray(plate[y0:y1, x0:x1])
    left, top, right, bottom = spot.box
    front = resize_cutout(cut.picture, right - left, bottom - top)
    front = relight_subject(front, cut.light, measure_light(scene))
    if casts_shadow and "bottom" not in cut.borders:
        dark = draw_shadow((front[..., 3] / 255).astype(np.float32), spot.box, scene.shape[:2])
        scene = (scene * (1 - dark[..., None])).round().astype(np.uint8)
    canvas: RGBA = np.zeros((*scene.shape[:2], 4), np.uint8)
    canvas[top:bottom, left:right] = front
    return composite_over(canvas, scene)


def draw_shadow(opacity: F32, box: tuple[int, int, int, int], size: tuple[int, int]) -> F32:
    """Draw the shadow on the ground below a subject: its flat, blurred outline, darkest at the foot.

    Args:
        opacity: the opacity of the subject, (h, w), 0..1.
        box: the box of the subject in the picture, xyxy px.
        size: (H, W) of the picture, px.

    Returns:
        (H, W) darkness, 0..1.
    """
    left, top, right, bottom = box
    h, w = bottom - top, right - left
    flat = max(3, round(h * _SHADOW_HEIGHT))
    soft = max(1.5, 0.02 * w)
    pad = int(3 * soft) + flat
    lying = cv2.resize(opacity, (w, flat), interpolation=cv2.INTER_AREA)
    # The light comes from above, so the shadow extends towards the camera and away from it.
    ground = np.zeros((flat + 2 * pad, w + 2 * pad), np.float32)
    ground[pad : pad + flat, pad : pad + w] = np.maximum(lying, 0)
    foot = opacity[-max(2, h // 12) :].max(axis=0)
    contact = np.zeros_like(ground)
    contact[pad + flat // 2 : pad + flat // 2 + max(2, flat // 4), pad : pad + w] = foot
    dark = 0.55 * cv2.GaussianBlur(ground, (0, 0), 1.6 * soft) + 0.8 * cv2.GaussianBlur(contact, (0, 0), soft)
    canvas = np.zeros(size, np.float32)
    y, x = bottom - pad - round(0.62 * flat), left - pad
    rows = slice(max(0, y), min(size[0], y + dark.shape[0]))
    columns = slice(max(0, x), min(size[1], x + dark.shape[1]))
    canvas[rows, columns] = dark[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return cast(F32, np.clip(_SHADOW_OPACITY * canvas, 0, _SHADOW_OPACITY))
