"""The rate of a video's frames, measured from time stamps, because the rate in the container is often wrong.

Browsers, phones and screen recorders write rates of 1000 per second, or an average over long pauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

DEFAULT_FPS = Fraction(25)  # if nothing is known; players assume it too
_STANDARD_RATES = (
    *(Fraction(rate) for rate in (10, 12, 15, 24, 25, 30, 48, 50, 60, 120)),
    *(Fraction(rate, 1001) for rate in (24_000, 30_000, 60_000)),
)
_AGREEMENT = 0.05  # relative difference up to which a stated rate is trusted
_SNAP = 0.015  # relative difference up to which a measured rate is a standard one: recorders begin unevenly
_MIN_STEPS = 4


def choose_frame_rate(stated: Sequence[Fraction | None], stamps_s: Sequence[float]) -> Fraction:
    """Return the rate of the frames, in frames per second.

    Args:
        stated: rates in the container, the most trusted first.
        stamps_s: time stamps of some frames, seconds, in any order.

    Returns:
        The first stated rate that agrees with the stamps, else the measured one. Without enough stamps, the
        first stated rate up to 1000, else 25.
    """
    plausible = [Fraction(rate) for rate in stated if rate and 0 < rate <= 1000]
    measured = measure_frame_rate(stamps_s)
    if measured is None:
        return plausible[0] if plausible else DEFAULT_FPS
    for rate in plausible:
        if abs(float(rate) / measured - 1) <= _AGREEMENT:
            return rate
    nearest = min(_STANDARD_RATES, key=lambda rate: abs(float(rate) - measured))
    if abs(float(nearest) / measured - 1) <= _SNAP:
        return nearest
    return Fraction(measured).limit_denominator(1000)


def measure_frame_rate(stamps_s: Sequence[float]) -> float | None:
    """Return frames per second between stamps, without pauses; None if there are too few stamps.

    Args:
        stamps_s: time stamps, seconds, in any order.
    """
    steps = np.diff(np.unique(np.asarray(stamps_s, np.float64)))
    if len(steps) < _MIN_STEPS:
        return None
    usual = steps[steps < 3 * float(np.median(steps))]
    return float(1 / usual.mean())
