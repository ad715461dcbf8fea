"""Measure motion without the movement of the camera. Pure functions of two small grey frames.

The camera's movement is an affine map, found by sparse Lucas-Kanade tracks and RANSAC. The earlier frame is
warped by that map. The dense flow that remains between the two frames is the residual motion. The warp comes
first because a fast dense flow is exact only where it is small, and because a still background then has a
residual of exactly zero.

Speeds are shares of the frame's diagonal per second, so they mean the same at every size and frame rate.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
F32 = NDArray[np.float32]
BoolMask = NDArray[np.bool_]

LONG_SIDE = 256  # px; dense flow costs about 2 ms here, and a subject of 5 % of the frame is still 12 px wide

_MAX_TRACKS = 160
_MIN_TRACKS = 12  # an affine map has 6 unknowns, 3 tracks; four times that to outvote a few bad ones
_INLIER_PX = 1.0  # tracks on a 256 px frame are good to about half a pixel
_MIN_INLIERS = 0.35  # below this share no single movement explains the frame
_FEATURE_QUALITY = 0.01
_WINDOW = 11  # px, of Lucas-Kanade; three pyramid levels reach about 40 px
_CHANGE_PATCH = 9  # px; where a patch did not change, its flow came from its neighbours
_CHANGE_GREY = (4.0, 12.0)  # grey levels: from compression noise of a reduced frame to a visible change


class FrameMotion(NamedTuple):
    """Motion between two frames, in shares of the diagonal per second.

    Attributes:
        residual: (h, w) float32, >= 0, aligned with the later frame.
        camera: mean speed of the camera over the frame.
    """

    residual: NDArray[np.float32]
    camera: float


def measure_motion(previous_grey: Grey, grey: Grey, dt_s: float) -> FrameMotion:
    """Measure residual and camera motion between two grey frames `dt_s` seconds apart.

    Frames longer than `LONG_SIDE` are reduced. The residual has the size of the given frames.

    Raises:
        ValueError: frames of different shapes, or a time step that is not positive.
    """
    if previous_grey.shape != grey.shape or grey.ndim != 2:
        raise ValueError(f"two grey frames of one shape expected, got {previous_grey.shape} and {grey.shape}")
    if dt_s <= 0:
        raise ValueError(f"frames must be apart in time, got {dt_s} s")
    height, width = grey.shape
    scale = LONG_SIDE / max(height, width)
    small, small_previous = grey, previous_grey
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cast(Grey, cv2.resize(grey, size, interpolation=cv2.INTER_AREA))
        small_previous = cast(Grey, cv2.resize(previous_grey, size, interpolation=cv2.INTER_AREA))
    camera = estimate_camera(small_previous, small)
    residual = _compute_residual(small_previous, small, camera) / np.float32(_measure_diagonal(small) * dt_s)
    if scale < 1:
        residual = np.asarray(
            cv2.resize(residual, (width, height), interpolation=cv2.INTER_LINEAR), np.float32
        )
    return FrameMotion(residual, measure_camera_speed(camera, small.shape, dt_s))


def estimate_camera(previous_grey: Grey, grey: Grey) -> NDArray[np.float64]:
    """Estimate the affine map, (2, 3), from points of the earlier frame to the later one, px.

    The result is the identity where too few points can be tracked (a black frame), or where no movement
    explains enough of them (a cut).
    """
    identity = np.eye(2, 3)
    distance = max(
        4.0, max(grey.shape) / 32
    )  # spread over the frame, so that a textured subject has few votes
    points = cv2.goodFeaturesToTrack(previous_grey, _MAX_TRACKS, _FEATURE_QUALITY, distance)
    if points is None or len(points) < _MIN_TRACKS:
        return identity
    window = (_WINDOW, _WINDOW)
    moved, status, _ = cv2.calcOpticalFlowPyrLK(previous_grey, grey, points, points.copy(), winSize=window)
    found = status.ravel() == 1
    if int(found.sum()) < _MIN_TRACKS:
        return identity
    before, after = points[found].reshape(-1, 2), moved[found].reshape(-1, 2)
    best, spread = identity, 0
    # A large subject in front of a bare wall has more tracks than the wall, but the wall surrounds it. So
    # of two movements the one that covers more of the frame is the camera's.
    for _ in range(2):
        affine, inside = _fit_affine(before, after)
        if affine is None or inside.mean() < _MIN_INLIERS:
            break
        here = _measure_spread(before[inside], grey.shape)
        if here > spread:
            best, spread = affine, here
        before, after = before[~inside], after[~inside]
        if len(before) < _MIN_TRACKS:
            break
    return best


def _fit_affine(before: F32, after: F32) -> tuple[NDArray[np.float64] | None, BoolMask]:
    """Fit an affine map to most tracks; return it and which tracks follow it. None: no plausible map."""
    cv2.setRNGSeed(0)
    affine, inliers = cv2.estimateAffine2D(
        before, after, method=cv2.RANSAC, ransacReprojThreshold=_INLIER_PX, maxIters=500
    )
    if affine is None or not _is_camera_plausible(np.asarray(affine)):
        return None, np.zeros(len(before), bool)
    return np.asarray(affine, np.float64), np.ravel(inliers).astype(bool)


def _measure_spread(points: F32, shape: tuple[int, ...]) -> int:
    """Count the cells of a 6 x 6 grid over the frame that hold a point; cells at the border count twice."""
    height, width = shape[:2]
    cells = np.zeros((6, 6), bool)
    rows = np.clip(points[:, 1] * 6 / height, 0, 5).astype(int)
    columns = np.clip(points[:, 0] * 6 / width, 0, 5).astype(int)
    cells[rows, columns] = True
    return int(2 * cells.sum() - cells[1:-1, 1:-1].sum())


def measure_camera_speed(affine: NDArray[np.float64], shape: tuple[int, ...], dt_s: float) -> float:
    """Return the mean speed of the frame's points under `affine`, in shares of the diagonal per second."""
    height, width = shape[:2]
    columns, rows = np.meshgrid(np.linspace(0, width - 1, 9), np.linspace(0, height - 1, 9))
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)
    displacement = points @ affine[:, :2].T + affine[:, 2] - points
    return float(np.hypot(*displacement.T).mean() / (np.hypot(height, width) * dt_s))


def _compute_residual(previous: Grey, grey: Grey, affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Compute the residual motion, px; 0 where the camera has uncovered new parts of the scene."""
    height, width = grey.shape
    warped = cv2.warpAffine(previous, affine, (width, height), borderMode=cv2.BORDER_REPLICATE)
    if min(height, width) < 16:  # smaller than the patches of the dense flow
        return np.zeros((height, width), np.float32)
    dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = dense.calc(grey, cast(Grey, warped), np.zeros((height, width, 2), np.float32))
    magnitude = np.hypot(flow[..., 0], flow[..., 1])
    covered = cv2.warpAffine(np.full((height, width), 255, np.uint8), affine, (width, height))
    covered = cv2.erode(covered, np.ones((5, 5), np.uint8), borderValue=255)
    moving = np.where(covered == 255, magnitude * _detect_change(grey, cast(Grey, warped)), 0)
    return cast(NDArray[np.float32], moving.astype(np.float32))


def _detect_change(grey: Grey, warped: Grey) -> NDArray[np.float32]:
    """Return for each pixel, 0..1, whether anything near it changed.

    The smoothness term of dense flow spreads flow into bare walls and floors beside a moving subject. Those
    do not change.
    """
    difference = cv2.absdiff(cv2.GaussianBlur(grey, (3, 3), 0), cv2.GaussianBlur(warped, (3, 3), 0))
    near = cv2.dilate(difference, np.ones((_CHANGE_PATCH, _CHANGE_PATCH), np.uint8)).astype(np.float32)
    low, high = _CHANGE_GREY
    return cast(NDArray[np.float32], np.clip((near - low) / (high - low), 0, 1))


def _is_camera_plausible(affine: NDArray[np.float64]) -> bool:
    """Return whether a map is a movement of a camera: no mirroring, and no zoom by half within 0.2 s."""
    determinant = float(np.linalg.det(affine[:, :2]))
    return 0.5 < determinant < 2.0


def _measure_diagonal(grey: Grey) -> float:
    return float(np.hypot(*grey.shape))
