"""Measure the motion of subject and background (proxy replay, appendix A.5, which adapts FloVD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import BoolMask

# px: longer side of the frames to which lengths of flow refer. The paper does not state its resolution; the
# models that it measures (CogVideoX-5B, FloVD) make 720 x 480.
FLOW_SIDE = 720


@dataclass(frozen=True)
class FlowMagnitude:
    """Mean length of flow in pixels; None if no pixel can be measured."""

    foreground: float | None
    background: float | None


def measure_flow_magnitude(
    flow: NDArray[np.float32], mask: BoolMask, subjects: BoolMask | None = None
) -> FlowMagnitude:
    """Measure FlowMag_f and FlowMag_b of A.5 step 2: means of |u(x)| inside and outside the mask.

    Args:
        flow: (H, W, 2), pixels. Values that are not finite are left out.
        mask: (H, W), True on the subject, in the frame that the flow starts from.
        subjects: (H, W), True on any subject, which is not background. None: only the mask.

    Raises:
        ValueError: flow and mask differ in size.
    """
    if flow.shape != (*mask.shape, 2):
        raise ValueError(f"flow {flow.shape} does not fit the mask {mask.shape}")
    length = np.hypot(flow[..., 0].astype(np.float64), flow[..., 1].astype(np.float64))
    known = np.isfinite(length)
    behind = ~mask if subjects is None else ~(mask | subjects)
    return FlowMagnitude(_compute_mean(length[mask & known]), _compute_mean(length[behind & known]))


def measure_clip_flow(
    flows: Sequence[NDArray[np.float32]], mask: BoolMask, subjects: BoolMask | None = None
) -> FlowMagnitude:
    """Average the flow magnitudes of A.5 over a clip; without flows both are None.

    Args:
        flows: from the first frame to each later one, (H, W, 2) each, px.
        mask: (H, W), True on the subject in the first frame.
        subjects: (H, W), the union of all subjects in that frame; None: only the mask.
    """
    each = [measure_flow_magnitude(flow, mask, subjects) for flow in flows]
    return FlowMagnitude(
        _compute_mean(np.array([motion.foreground for motion in each if motion.foreground is not None])),
        _compute_mean(np.array([motion.background for motion in each if motion.background is not None])),
    )


def _compute_mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None
