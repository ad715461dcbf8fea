"""What models with one space for pictures and words share: squares in, unit vectors and probabilities out.

**Probabilities.** A row answers "which of these texts is it, given that it is exactly one of them".
CLIP was trained with a softmax over texts, so its answer is the softmax of scale * cosine. SigLIP was trained
with a sigmoid per pair, p_j = sigmoid(l_j) with l_j = scale * cosine + bias, each pair for itself. If exactly
one of the texts holds and the pairs are independent, text j is the one with probability proportional to p_j *
prod_{i != j} (1 - p_i), that is to p_j / (1 - p_j) = exp(l_j): the softmax of the logits again, and the bias
cancels. So both are formed alike.
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
    """roles.ImageEmbedder of whoever has `_encode_images` and `_batches`."""

    _batches: BatchRunner

    def embed(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        """Unit vectors (images, d); the dot product of two is their similarity, -1..1."""
        rows = self._batches(images, self._encode_images)
        return normalize_rows(np.stack(rows)) if rows else np.zeros((0, 0), np.float32)

    def _encode_images(self, images: Sequence[RGB]) -> list[F32]:
        """(d,) per picture of one batch."""
        raise NotImplementedError


class Scorer(Embedder):
    """roles.ImageTextScorer, too, of whoever also has `_encode_texts` and `_scale` (exp of `logit_scale`)."""

    _scale: float
    _texts: TextCache

    def score(self, images: Sequence[RGB], texts: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities (images, texts), each row summing to 1; how they are formed: see the module."""
        if not images or not texts:
            return np.zeros((len(images), len(texts)), np.float32)
        return compute_probabilities(self.embed(images), self._texts(texts), self._scale)

    def compute_similarities(self, images: Sequence[RGB], texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosines (images, texts), -1..1: how well each phrase fits, whatever the others are."""
        if not images or not texts:
            return np.zeros((len(images), len(texts)), np.float32)
        return np.asarray(self.embed(images) @ self._texts(texts).T, np.float32)


def check_fit(spec: ModelSpec, fit: Any) -> None:
    """Whether the option `fit` is "pad" (the picture whole, on a square) or "crop" (as the checkpoint does).

    Raises:
        RepriseError: it is neither.
    """
    if fit not in ("pad", "crop"):
        raise RepriseError(f"models: {spec.backend} option fit must be pad or crop, not {fit!r}")


def get_fill_colour(preprocessing: Any, fit: str) -> list[float] | None:
    """Return the colour of the square that pictures are put on, 0..255 a channel; None: there is no square.

    It is the mean that preprocessing subtracts, so that the filling becomes zero.
    """
    mean = getattr(preprocessing, "image_mean", None) or (0.5, 0.5, 0.5)
    return None if fit == "crop" else [255 * value for value in mean]


def normalize_rows(vectors: NDArray[np.floating]) -> F32:
    """(n, d) -> (n, d) with rows of length 1; a row of zeros stays one."""
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def compute_probabilities(images: F32, texts: F32, scale: float) -> F32:
    """Unit vectors (n, d) and (m, d) -> (n, m), each row summing to 1: see the module."""
    logits = scale * (images.astype(np.float64) @ texts.astype(np.float64).T)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


class TextCache:
    """Unit vectors of the last few lists of texts; categories are the same list every time."""

    def __init__(self, encode: Callable[[Sequence[str]], F32]) -> None:
        self._encode = encode
        self._known: dict[tuple[str, ...], F32] = {}

    def __call__(self, texts: Sequence[str]) -> F32:
        """(m, d) unit vectors, in the order of the texts."""
        key = tuple(texts)
        found = self._known.pop(key, None)
        if found is None:
            found = self._encode(key)
        self._known[key] = found  # the last used one is last
        while len(self._known) > _CACHE_SIZE:
            self._known.pop(next(iter(self._known)))
        return found


def pad_to_square(image: RGB, fill: Sequence[float], share: float = 1.0) -> RGB:
    """A picture on a square of one colour, whole and in the middle.

    These models resize the shorter side and cut a square from the middle: of a standing person that is the
    belly. On a square, nothing is cut off.

    Args:
        image: (h, w, 3).
        fill: the colour, 0..255 a channel.
        share: side of what will be cut from the middle / side of the square; the picture fills that part.

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
