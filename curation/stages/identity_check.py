"""Measure whether a generated picture still shows its subject (Kaleido 3.2 (6))."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curation.config import CurationConfig
from curation.filters.embeddings import compute_similarity
from curation.imaging.codec import RGB
from curation.models import registry
from curation.models.roles import Face, FaceDetector, ImageEmbedder
from curation.rows.groups import HUMAN


@dataclass(frozen=True)
class IdentityPair:
    """A subject in its video (`before`) and in a generated picture (`after`), with its taxonomy group."""

    before: RGB
    after: RGB
    group: str


@dataclass(frozen=True)
class IdentityScores:
    """Cosine similarities, -1..1; None: not measured.

    Attributes:
        image: the similarity of the whole pictures.
        face: the similarity of the largest faces, if the subject is human and both pictures show a face.
    """

    image: float | None = None
    face: float | None = None


class IdentityCheck:
    """Measures pairs with the backends of `embedder` and `faces`. A role without a backend gives None."""

    def __init__(self, config: CurationConfig) -> None:
        """Load the backends.

        Raises:
            RepriseError: a backend cannot be loaded.
        """
        self.embedder: ImageEmbedder | None = registry.load_backend(config, "embedder")
        self.faces: FaceDetector | None = registry.load_backend(config, "faces")

    def measure_pairs(self, pairs: Sequence[IdentityPair]) -> list[IdentityScores]:
        """Measure pairs of pictures and return one result per pair."""
        images = self._compare_images(pairs)
        faces = self._compare_faces(pairs)
        return [IdentityScores(image, face) for image, face in zip(images, faces, strict=True)]

    def _compare_images(self, pairs: Sequence[IdentityPair]) -> list[float | None]:
        if self.embedder is None or not pairs:
            return [None] * len(pairs)
        vectors = self.embedder.embed([*(pair.before for pair in pairs), *(pair.after for pair in pairs)])
        before, after = vectors[: len(pairs)], vectors[len(pairs) :]
        return [compute_similarity(one, other) for one, other in zip(before, after, strict=True)]

    def _compare_faces(self, pairs: Sequence[IdentityPair]) -> list[float | None]:
        found: list[float | None] = [None] * len(pairs)
        humans = [number for number, pair in enumerate(pairs) if pair.group == HUMAN]
        if self.faces is None or not humans:
            return found
        before = self.faces.detect_faces([pairs[number].before for number in humans])
        if not any(face.embedding is not None for faces in before for face in faces):
            return found  # this detector makes no face embeddings
        after = self.faces.detect_faces([pairs[number].after for number in humans])
        for number, one, other in zip(humans, before, after, strict=True):
            found[number] = compare_largest_faces(one, other)
        return found


def compare_largest_faces(before: Sequence[Face], after: Sequence[Face]) -> float | None:
    """Return the cosine of the largest faces; None: a picture has no face, or a face has no embedding."""
    one, other = _find_largest_face(before), _find_largest_face(after)
    if one is None or other is None or one.embedding is None or other.embedding is None:
        return None
    return compute_similarity(one.embedding, other.embedding)


def _find_largest_face(faces: Sequence[Face]) -> Face | None:
    return max(
        faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]), default=None
    )
