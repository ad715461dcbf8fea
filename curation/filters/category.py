"""Whether a crop looks like what the caption calls it (Kaleido 3.2 (4 ii))."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curation.rows.schema import Scores


def measure_category(probabilities: NDArray[np.float32], categories: Sequence[str], wanted: str) -> Scores:
    """Measure the probability of the wanted category, and its lead over the best other one, -1..1.

    The choice is among all categories of the taxonomy, similar ones too ("cup" and "mug"), so a probability
    is lower than it would be among a few.

    Args:
        probabilities: (categories,), summing to 1.
        categories: their labels.
        wanted: the subject's own category.

    Raises:
        ValueError: `wanted` is not among the categories.
    """
    position = list(categories).index(wanted)
    own = float(probabilities[position])
    others = np.delete(probabilities, position)
    return {"clip_category": own, "clip_margin": own - float(others.max()) if others.size else own}
