"""Match phrases with regions: marginal probabilities over all one-to-one assignments.

A phrase may also name no region. With weights w(slot, region), and w0 for "no region", the probability of an
assignment is the product of its weights / the sum of these products over all assignments. The result for a
pair is the sum of the probabilities of all assignments that contain it. Two phrases and two regions without
evidence give 0.5 for each pair.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def compute_marginals(weights: NDArray[np.float64], absent: float) -> NDArray[np.float64]:
    """Compute the probability that each slot is each region.

    The result is exact, by dynamic programming over sets of regions. It is meant for at most about ten
    regions.

    Args:
        weights: (slots, regions), >= 0.
        absent: weight of "the slot is no region".

    Returns:
        (slots, regions), 0..1; each row sums to at most 1.
    """
    slots, regions = weights.shape
    states = 1 << regions
    forward = np.zeros((slots + 1, states))
    backward = np.zeros((slots + 1, states))
    forward[0, 0] = 1
    backward[slots] = 1
    for slot in range(slots):
        forward[slot + 1] = _advance_states(forward[slot], weights[slot], absent)
    for slot in reversed(range(slots)):
        for used in range(states):
            total = absent * backward[slot + 1, used]
            for region in range(regions):
                if not used >> region & 1:
                    total += weights[slot, region] * backward[slot + 1, used | 1 << region]
            backward[slot, used] = total
    result = np.zeros((slots, regions))
    for slot in range(slots):
        for region in range(regions):
            free = [used for used in range(states) if not used >> region & 1]
            after = [used | 1 << region for used in free]
            mass = forward[slot, free] @ backward[slot + 1, after]
            result[slot, region] = weights[slot, region] * mass
    return np.asarray(result / max(backward[0, 0], 1e-300))


def _advance_states(
    before: NDArray[np.float64], weights: NDArray[np.float64], absent: float
) -> NDArray[np.float64]:
    after: NDArray[np.float64] = absent * before
    for used in np.flatnonzero(before):
        for region, weight in enumerate(weights):
            if not int(used) >> region & 1:
                after[int(used) | 1 << region] += weight * before[used]
    return after
