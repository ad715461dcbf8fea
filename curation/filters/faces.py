"""Measure the faces of a human subject (Kaleido 3.2 (4 iv): only instances with a valid frontal face)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from curation.imaging.codec import BoolMask, clamp_box
from curation.rows.schema import Scores

# Share of a face's box under the mask. A subject's own face is nearly all under it, but masks are rough.
_OWN_SHARE = 0.3
# Of the surest face's confidence: the classical detector gives a round patch on a suit 0.4 to 0.6, the face
# above it 1.0, and 98 of the 100 faces of scikit-image's LFW subset at least 0.8.
_SURE_SHARE = 0.6


class FoundFace(Protocol):
    """The attributes of a found face that are read (`curation.models.roles.Face`)."""

    @property
    def box(self) -> list[float]:
        """The box, xyxy, px."""
        ...

    @property
    def score(self) -> float:
        """The detector's confidence, 0..1."""
        ...

    @property
    def frontality(self) -> float:
        """The frontality, 0..1: 1 looks at the camera, 0 is a profile or looks away."""
        ...


FaceT = TypeVar("FaceT", bound=FoundFace)


def select_own_faces(faces: Sequence[FaceT], mask: BoolMask) -> list[FaceT]:
    """Select the faces that lie on the subject, not on a person beside it in the same box.

    Args:
        faces: the faces of the picture.
        mask: the mask of the subject, (H, W), in the coordinates of the faces' boxes.
    """
    found = []
    for face in faces:
        x0, y0, x1, y1 = clamp_box(face.box, mask.shape[1], mask.shape[0])
        if mask[y0:y1, x0:x1].mean() >= _OWN_SHARE:
            found.append(face)
    return found


def measure_faces(faces: Sequence[FoundFace], width: float, height: float) -> Scores:
    """Count the faces, and measure the size, confidence and frontality of the largest one.

    A face with a much lower confidence than the best one is taken for a pattern and is ignored.

    Args:
        faces: the faces of one subject.
        width: the width of the subject's box, px.
        height: the height of the subject's box, px.
    """
    if not faces:
        return {"face_count": 0.0}
    least = _SURE_SHARE * max(face.score for face in faces)
    sure = [face for face in faces if face.score >= least]
    largest = max(sure, key=_compute_area)
    return {
        "face_count": float(len(sure)),
        "face_share": min(1.0, _compute_area(largest) / (width * height)),
        "face_score": float(largest.score),
        "face_frontality": float(largest.frontality),
    }


def _compute_area(face: FoundFace) -> float:
    x0, y0, x1, y1 = face.box
    return max(0.0, x1 - x0) * max(0.0, y1 - y0)
