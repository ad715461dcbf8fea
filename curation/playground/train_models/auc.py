"""Area under the ROC curve, the metric of detectors and recognisers here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def compute_auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Compute the area under the ROC curve, 0..1.

    It is the probability that a positive's score is above a negative's; ties count half.

    Args:
        positive: scores of positives, at least one.
        negative: scores of negatives, at least one.
    """
    high, low = np.asarray(positive)[:, None], np.asarray(negative)[None, :]
    return float(((high > low) + 0.5 * (high == low)).mean())
