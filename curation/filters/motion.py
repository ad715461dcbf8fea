"""Motion of the subject apart from the camera's (proxy replay, appendix A.5, adapted there from FloVD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import BoolMask

# px: longer side of the frames that lengths of flow are stated for. The paper does not say which it means;
# 720 x 480 is what the models that it measures (CogVideoX-5B; FloVD before it) make.
FLOW_SIDE = 720
# Proxy replay A.5, steps 3 and 4, in pixels.
CAMERA_MAX = 10.0  # a background that moves more is a moving camera
SMALL_MAX = 25.0
MEDIUM_MAX = 50.0


@dataclass(frozen=True)
class Motion:
    """Mean length of flow in pixels; None where there is no pixel to measure."""

    foreground: float | None
    background: float | None


def foreground_background_motion(
    flow: NDArray[np.float32], mask: BoolMask, subjects: BoolMask | None = None
) -> Motion:
    """FlowMag_f and FlowMag_b of A.5 step 2: means of |u(x)| over the pixels of each side of the mask.

    Args:
        flow: (H, W, 2), pixels. Values that are not finite are left out.
        mask: (H, W), True on the subject, in the frame that the flow starts from.
        subjects: (H, W), True on any subject: no background. None: the mask alone.

    Raises:
        ValueError: flow and mask differ in size.
    """
    if flow.shape != (*mask.shape, 2):
        raise ValueError(f"flow {flow.shape} does not fit the mask {mask.shape}")
    length = np.hypot(flow[..., 0].astype(np.float64), flow[..., 1].astype(np.float64))
    known = np.isfinite(length)
    behind = ~mask if subjects is None else ~(mask | subjects)
    return Motion(_mean(length[mask & known]), _mean(length[behind & known]))


def clip_motion(
    flows: Sequence[NDArray[np.float32]], mask: BoolMask, subjects: BoolMask | None = None
) -> Motion:
    """A.5 over a clip: flows from its first frame to each later one, averaged over these frames.

    `mask` is the subject's in the first frame, `subjects` all of them. Without flows both are None.
    """
    each = [foreground_background_motion(flow, mask, subjects) for flow in flows]
    return Motion(
        _mean(np.array([motion.foreground for motion in each if motion.foreground is not None])),
        _mean(np.array([motion.background for motion in each if motion.background is not None])),
    )


def motion_class(motion: Motion) -> str | None:
    """small, medium or large by the foreground (A.5 step 4); None: a moving camera (step 3) or unknown."""
    if motion.foreground is None or (motion.background is not None and motion.background > CAMERA_MAX):
        return None
    if motion.foreground <= SMALL_MAX:
        return "small"
    return "medium" if motion.foreground <= MEDIUM_MAX else "large"


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None
