"""Detect faces with the cascades that OpenCV and scikit-image ship.

A single cascade finds false faces in foliage. So each candidate is scaled to one size and tested again by all
cascades, and the number of windows that each one accepts is the evidence. A real face is accepted in dozens
of windows of several cascades, a chance pattern in a few windows of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

from curation.imaging.codec import RGB, compute_box_iou, compute_luma
from curation.models.roles import Face
from reprise.errors import RepriseError

Grey = NDArray[np.uint8]
Box = list[float]

FRONTAL_CASCADES = ("frontalface_alt2", "frontalface_default", "lbp")
PROFILE_CASCADE = "profileface"
_EYE_CASCADE = "eye_tree_eyeglasses"

_SEARCH_SIDE = 480  # px; a face must be 24 px there, that is 1/20 of the long side
_PROFILE_SHARE = 2 / 3  # of that size, for the profile cascade
_MIN_FACE_SIDE = 24  # px, the window of the cascades
_FACE_SIDE = 72  # px of a candidate when it is tested again
_CONTEXT = 0.5  # of its side, added on every side of a candidate
_FULL_VOTE = 12  # windows; a clear frontal face gets 15 to 40 of them from each cascade
_MIN_VOTES = 0.35  # candidates with fewer votes are not reported


@dataclass(frozen=True)
class CascadeVotes:
    """Accepted windows around one place: the count of each cascade / `_FULL_VOTE`, at most 1."""

    frontal: tuple[float, ...]  # in the order of FRONTAL, 0..1 each
    profile: float  # the better of the two sides, 0..1

    @property
    def score(self) -> float:
        """Confidence, 0..1: the mean of the two highest votes of the cascades."""
        ranked = sorted([*self.frontal, self.profile], reverse=True)
        return (ranked[0] + ranked[1]) / 2

    @property
    def frontality(self) -> float:
        """How frontal the face is, 0..1: frontal votes against the profile votes beyond a quarter of them."""
        frontal = sorted(self.frontal, reverse=True)
        forward = (frontal[0] + frontal[1]) / 2
        return forward / max(forward + max(self.profile - 0.25 * forward, 0.0), 1e-6)


class ClassicalFaces:
    """roles.FaceDetector. No embedding, no yaw or pitch; roll only where both eyes are found."""

    name = "classical-faces"
    revision = f"1-cv{cv2.__version__}"

    def detect_faces(self, images: Sequence[RGB]) -> list[list[Face]]:
        """Find the faces of each picture, the surest first. Boxes are in pixels of the picture."""
        return [find_faces(image) for image in images]


def find_faces(image: RGB, search_side: int = _SEARCH_SIDE) -> list[Face]:
    """Find the faces of one picture, the surest first. `search_side`: long side while searching, px."""
    grey = compute_luma(image)
    found = []
    for box in _find_candidates(grey, search_side):
        votes = _collect_votes(grey, box)
        if votes.score >= _MIN_VOTES:
            found.append((votes, box))
    found.sort(key=lambda each: (-each[0].score, each[1]))
    kept: list[Face] = []
    for votes, box in found:
        if all(not _is_same_place(box, other.box) for other in kept):
            roll, symmetry = _measure_eyes(grey, box)
            kept.append(Face(box, votes.score, votes.frontality * symmetry, roll=roll))
    return kept


def _find_candidates(grey: Grey, search_side: int) -> list[Box]:
    """Find the places that any cascade accepts: one box per place, in pixels of `grey`."""
    height, width = grey.shape
    scale = min(1.0, search_side / max(height, width))
    small = grey
    if scale < 1:
        small = cast(Grey, cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    if min(small.shape) < _MIN_FACE_SIDE:
        return []
    boxes = _run_cascade(_load_cascade("lbp"), small, 1.1, 2) + _run_cascade(
        _load_cascade(FRONTAL_CASCADES[0]), small, 1.2, 1
    )
    # This cascade is the slowest and runs twice. Profiles are rarely portraits, so only larger faces are
    # searched.
    share = _PROFILE_SHARE
    less = cast(Grey, cv2.resize(small, None, fx=share, fy=share, interpolation=cv2.INTER_AREA))
    sides = _run_cascade(_load_cascade(PROFILE_CASCADE), less, 1.2, 2)
    mirrored = _run_cascade(
        _load_cascade(PROFILE_CASCADE), cast(Grey, cv2.flip(less, 1)), 1.2, 2
    )  # trained on one side only
    sides += [[less.shape[1] - b[2], b[1], less.shape[1] - b[0], b[3]] for b in mirrored]
    boxes += [[side / share for side in box] for box in sides]
    places: list[Box] = []
    for box in boxes:
        if all(compute_box_iou(box, other) < 0.4 for other in places):
            places.append(box)
    return [[side / scale for side in box] for box in places]


def _collect_votes(grey: Grey, box: Box) -> CascadeVotes:
    """Scale the place to one size and count the windows that each cascade accepts there."""
    side = max(box[2] - box[0], box[3] - box[1])
    crop = _crop_square(grey, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side * (1 + 2 * _CONTEXT))
    whole = round(_FACE_SIDE * (1 + 2 * _CONTEXT))
    crop = cast(Grey, cv2.resize(crop, (whole, whole), interpolation=cv2.INTER_AREA))
    crop = cast(Grey, cv2.equalizeHist(crop))
    margin = _FACE_SIDE * _CONTEXT
    place = [margin, margin, whole - margin, whole - margin]
    mirrored = cast(Grey, cv2.flip(crop, 1))
    profile = max(
        _count_windows(PROFILE_CASCADE, crop, place), _count_windows(PROFILE_CASCADE, mirrored, place)
    )
    return CascadeVotes(tuple(_count_windows(name, crop, place) for name in FRONTAL_CASCADES), profile)


def _count_windows(name: str, crop: Grey, place: Box) -> float:
    """Count the accepted windows of one cascade that overlap `place`, as a share of a full vote, 0..1."""
    low, high = round(_FACE_SIDE * 0.7), round(_FACE_SIDE * 1.4)
    boxes = _run_cascade(_load_cascade(name), crop, 1.05, 0, low, high)
    return min(1.0, sum(compute_box_iou(box, place) > 0.45 for box in boxes) / _FULL_VOTE)


def _measure_eyes(grey: Grey, box: Box) -> tuple[float | None, float]:
    """Measure the roll in degrees and how symmetric the eyes are about the middle of the face, 0.5..1.

    The result is (None, 1) if two eyes are not found, because a frontal face may have closed or hidden eyes.
    """
    side = box[2] - box[0]
    crop = _crop_square(grey, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side)
    crop = cast(Grey, cv2.resize(crop, (120, 120), interpolation=cv2.INTER_AREA))
    upper = np.ascontiguousarray(crop[15:75])
    boxes = _run_cascade(_load_cascade(_EYE_CASCADE), upper, 1.1, 3, 18, 48)
    centres = sorted(((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in boxes)
    if len(centres) != 2:
        return None, 1.0
    (left_x, left_y), (right_x, right_y) = centres
    if right_x - left_x < 24:  # two boxes on one eye
        return None, 1.0
    roll = float(np.degrees(np.arctan2(right_y - left_y, right_x - left_x)))
    # A head turned by 30 degrees moves the middle of its eyes by about a seventh of the face's width.
    offset = abs((left_x + right_x) / 2 - 60) / 120
    return roll, float(np.clip(1.25 - 3.5 * offset, 0.5, 1.0))


def _is_same_place(left: Box, right: Box) -> bool:
    """Return whether two boxes show one face: they overlap much, or one contains the middle of the other."""
    x, y = (left[0] + left[2]) / 2, (left[1] + left[3]) / 2
    inside = right[0] < x < right[2] and right[1] < y < right[3]
    return inside or compute_box_iou(left, right) > 0.3


def _crop_square(grey: Grey, x: float, y: float, side: float) -> Grey:
    """Crop the square around (x, y). Edges are repeated outside the picture."""
    size = max(2, round(side))
    left, top = round(x - size / 2), round(y - size / 2)
    height, width = grey.shape
    rows = np.clip(np.arange(top, top + size), 0, height - 1)
    columns = np.clip(np.arange(left, left + size), 0, width - 1)
    return np.ascontiguousarray(grey[np.ix_(rows, columns)])


def _run_cascade(
    cascade: cv2.CascadeClassifier,
    grey: Grey,
    step: float,
    neighbours: int,
    smallest: int = _MIN_FACE_SIDE,
    largest: int = 0,
) -> list[Box]:
    """Return the boxes that a cascade accepts, xyxy. `largest` 0: no limit."""
    found = cascade.detectMultiScale(
        grey,
        scaleFactor=step,
        minNeighbors=neighbours,
        minSize=(smallest, smallest),
        maxSize=(largest, largest),
    )
    return [[float(x), float(y), float(x + w), float(y + h)] for x, y, w, h in found]


@cache
def _load_cascade(name: str) -> cv2.CascadeClassifier:
    """Load a cascade by its short name; "lbp" is scikit-image's.

    Raises:
        FileNotFoundError: the installed OpenCV ships no cascades (5.x does not).
    """
    cascade = cv2.CascadeClassifier()
    if name == "lbp":
        path = Path(skimage.__file__).parent / "data" / "lbpcascade_frontalface_opencv.xml"
        # scikit-image's copy misspells one tag, which only OpenCV's reader needs.
        text = path.read_text(encoding="utf-8").replace("featuhreParams", "featureParams")
        storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        cascade.read(storage.getFirstTopLevelNode())
        storage.release()
    else:
        path = Path(cv2.__file__).parent / "data" / f"haarcascade_{name}.xml"
        cascade.load(str(path))
    if cascade.empty():
        raise RepriseError(f"no cascade in {path}: the classical profile needs opencv-python-headless 4.x")
    return cascade
