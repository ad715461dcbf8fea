"""Faces of a human subject (Kaleido 3.2 (4 iv): only instances with a valid frontal face)."""

from __future__ import annotations

from collections.abc import Sequence

from curation.models.roles import Face
from curation.schema import Scores


def measure_faces(faces: Sequence[Face], width: int, height: int) -> Scores:
    """Count and the largest face's size, confidence and frontality; (width, height) px is the crop looked at."""
    if not faces:
        return {"face_count": 0.0}
    largest = max(faces, key=_area)
    return {
        "face_count": float(len(faces)),
        "face_share": _area(largest) / (width * height),
        "face_score": float(largest.score),
        "face_frontality": float(largest.frontality),
    }


def _area(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return max(0.0, x1 - x0) * max(0.0, y1 - y0)
