"""How well the pixels support a mask: contrast along its outline, and agreement with motion."""

from __future__ import annotations

from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask

F32 = NDArray[np.float32]

_SIDE: Final = 256  # px, longer side of the picture while measuring
_REACH: Final = 2.5  # px of that size: distance of the two compared points from the outline
_VISIBLE_STEP: Final = 10.0  # distance in CIELAB from which a step between two colours is an edge; ours
_STILL_SPEED: Final = 0.04  # diagonals per second: half-way between still and moving, as in the detector
_MOVING: Final = 0.3  # mean movement, 0..1, under which a mask shows a thing at rest


def measure_outline(image: RGB, mask: BoolMask) -> float | None:
    """Measure the share of a mask's outline that lies on a colour edge, 0..1.

    A point counts if the colours 2.5 px inside and outside of it (picture at 256 px) differ by at least 10 in
    CIELAB. The frame's edge is no part of the outline.

    Args:
        image: (H, W, 3) RGB.
        mask: (H, W), of the same frame; the size may differ.

    Returns:
        None: the outline has no point inside the frame.
    """
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = (max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), (0, 0), 1.0)
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    points = np.concatenate(contours)[:, 0]
    limit = np.array(size) - 1
    points = points[((points >= 2) & (points < limit - 1)).all(axis=1)]
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    columns, rows = points[:, 0], points[:, 1]
    inward = np.stack(
        [cv2.Sobel(depth, cv2.CV_32F, *order)[rows, columns] for order in ((1, 0), (0, 1))], axis=1
    )
    step = _REACH * inward / np.maximum(1e-6, np.linalg.norm(inward, axis=1, keepdims=True))
    ends = [np.rint(points + sign * step).astype(int) for sign in (1, -1)]
    whole = np.all([((end >= 0) & (end <= limit)).all(axis=1) for end in ends], axis=0)
    if not whole.any():
        return None
    colours = [lab[end[whole, 1], end[whole, 0]] for end in ends]
    return float((np.linalg.norm(colours[0] - colours[1], axis=1) >= _VISIBLE_STEP).mean())


def measure_motion_fit(speed: F32, mask: BoolMask) -> float | None:
    """Measure the share of the movement in a mask's neighbourhood that the mask holds, 0..1.

    The neighbourhood is the mask's box, larger by half on each side. A mask of a part of a moving thing holds
    little of it.

    Args:
        speed: (h, w) float32, motion against the camera, diagonals per second.
        mask: (H, W), of the same frame; the size may differ.

    Returns:
        None: the mask is empty, or the thing under it is at rest, about which motion says nothing.
    """
    height, width = speed.shape
    small = cast(
        BoolMask,
        cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool),
    )
    moving = speed / (speed + _STILL_SPEED)
    if not small.any() or float(moving[small].mean()) < _MOVING:
        return None
    rows, columns = np.flatnonzero(small.any(axis=1)), np.flatnonzero(small.any(axis=0))
    pad_y, pad_x = 2 + len(rows) // 2, 2 + len(columns) // 2
    near = (
        slice(max(0, int(rows[0]) - pad_y), int(rows[-1]) + 1 + pad_y),
        slice(max(0, int(columns[0]) - pad_x), int(columns[-1]) + 1 + pad_x),
    )
    return float(moving[near][small[near]].sum() / max(1e-6, float(moving[near].sum())))
