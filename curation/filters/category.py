"""Does the crop look like what the caption calls it (Kaleido 3.2 (4 ii))."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curation.schema import Scores


def measure_category(probabilities: NDArray[np.float32], categories: Sequence[str], wanted: str) -> Scores:
    """From probabilities (categories,) summing to 1: the wanted one's, and its lead over the best other, -1..1."""
    position = list(categories).index(wanted)
    own = float(probabilities[position])
    others = np.delete(probabilities, position)
    return {"clip_category": own, "clip_margin": own - float(others.max()) if others.size else own}
