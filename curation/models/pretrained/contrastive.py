"""Shared code of models that map pictures and texts to one space: preprocessing, unit vectors, probabilities.

**Probabilities.** A row holds the probability of each text, given that exactly one of the texts is true. CLIP
was trained with a softmax over texts, so the probabilities are the softmax of scale * cosine. SigLIP was
trained with an independent sigmoid per pair, p_j = sigmoid(l_j) with l_j = scale * cosine + bias. If exactly
one text is true and the pairs are independent, the probability of text j is proportional to p_j * prod_{i !=
j} (1 - p_i), that is, to p_j / (1 - p_j) = exp(l_j). This is again the softmax of the logits, and the bias
cancels. So one function computes both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.pretrained.device import BatchRunner
from reprise.errors import RepriseError

F32 = NDArray[np.float32]

_CACHE_SIZE = 8


class Embedder:
    """roles.ImageEmbedder for subclasses that have `_encode_images` and `_batches`."""

    _batches: BatchRunner

    def embed(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        """Return unit vectors (images, d); the dot product of two is their similarity, -1..1."""
        rows = self._batches(images, self._encode_images)
        return normalize_rows(np.stack(rows)) if rows else np.zeros((0, 0), np.float32)

    def _encode_images(self, images: Sequence[RGB]) -> list[F32]:
        """Return one vector (d,) per picture of a batch."""
        raise NotImplementedError


class Scorer(Embedder):
    """roles.ImageTextScorer for subclasses with `_encode_texts` and `_scale`, which is exp(`logit_scale`)."""

    _scale: float
    _texts: TextCache

    def score(self, images: Sequence[RGB], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return probabilities (images, texts); each row sums to 1. The module gives the equation."""
        if not images or not texts:
            return np.zeros((len(images), len(texts)), np.float32)
        return compute_probabilities(self.embed(images), self._texts(texts), self._scale)

    def compute_similarities(self, images: Sequence[RGB], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return cosines (images, texts), -1..1. A cosine does not depend on the other texts."""
        if not images or not texts:
            return np.zeros((len(images), len(texts)), np.float32)
        return np.asarray(self.embed(images) @ self._texts(texts).T, np.float32)


def check_fit(spec: ModelSpec, fit: Any) -> None:
    """Check that the option `fit` is "pad" (picture on a square) or "crop" (checkpoint's preprocessing).

    Raises:
        RepriseError: it is neither.
    """
    if fit not in ("pad", "crop"):
        raise RepriseError(f"models: {spec.backend} option fit must be pad or crop, not {fit!r}")


def get_fill_colour(preprocessing: Any, fit: str) -> list[float] | None:
    """Return the colour of the square that pictures are put on, 0..255 a channel; None: there is no square.

    It is the mean that preprocessing subtracts, so the filling becomes zero.
    """
    mean = getattr(preprocessing, "image_mean", None) or (0.5, 0.5, 0.5)
    return None if fit == "crop" else [255 * value for value in mean]


def normalize_rows(vectors: NDArray[np.floating]) -> F32:
    """Scale the rows of (n, d) vectors to length 1; a row of zeros stays zero."""
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def compute_probabilities(images: F32, texts: F32, scale: float) -> F32:
    """Compute probabilities (n, m) from unit vectors (n, d) and (m, d); each row sums to 1."""
    logits = scale * (images.astype(np.float64) @ texts.astype(np.float64).T)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


class TextCache:
    """Caches the unit vectors of the last few lists of texts, because the list of categories repeats."""

    def __init__(self, encode: Callable[[Sequence[str]], F32]) -> None:
        self._encode = encode
        self._known: dict[tuple[str, ...], F32] = {}

    def __call__(self, texts: Sequence[str]) -> F32:
        """Return unit vectors (m, d), in the order of the texts."""
        key = tuple(texts)
        found = self._known.pop(key, None)
        if found is None:
            found = self._encode(key)
        self._known[key] = found  # the most recently used key is last
        while len(self._known) > _CACHE_SIZE:
            self._known.pop(next(iter(self._known)))
        return found


def pad_to_square(image: RGB, fill: Sequence[float], share: float = 1.0) -> RGB:
    """Put a whole picture in the middle of a square of one colour.

    These models resize the shorter side and crop the middle square, which shows only the belly of a standing
    person. With the square, nothing is cut off.

    Args:
        image: (h, w, 3).
        fill: the colour, 0..255 per channel.
        share: side of the model's centre crop / side of the square; the picture fills that part.

    Returns:
        (s, s, 3) with s = max(h, w) / share, rounded up.
    """
    height, width = image.shape[:2]
    side = int(np.ceil(max(height, width) / share))
    square = np.empty((side, side, 3), np.uint8)
    square[:] = np.clip(np.round(fill), 0, 255).astype(np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square
