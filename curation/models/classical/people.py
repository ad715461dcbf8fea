"""Find people: faces with the bodies below them, and OpenCV's HOG pedestrians."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from curation.imaging.codec import RGB, BoolMask, compute_box_iou
from curation.models.classical.faces import find_faces
from curation.models.classical.frame import FrameMaps
from curation.models.classical.regions import Region, close_gaps, find_components

_HOG_SIDE = 512  # px, long side; a pedestrian must be about 100 px tall there
_HOG_SURE = 1.2  # margin of the SVM at which a detection is rarely wrong on the INRIA pedestrians
_HOG_MIN = 0.3
_FACE_MIN = 0.9  # for a face from which a body is estimated; 95 % of scikit-image's LFW subset score 1.0
_MIN_PROMINENCE = 0.45


@dataclass(frozen=True)
class Person:
    """A detected person. Boxes are in pixels of the picture. `face` is None if only the body was detected."""

    body: list[float]
    face: list[float] | None
    score: float


def find_people(image: RGB) -> list[Person]:
    """Find faces and upright bodies, the surest first."""
    faces = [face for face in find_faces(image) if face.score >= _FACE_MIN]
    found = [Person(_estimate_body(face.box, image.shape), face.box, face.score) for face in faces]
    found += [Person(box, None, score) for box, score in _detect_pedestrians(image)]
    return sorted(found, key=lambda person: -person.score)


def make_body_seed(person: Person, frame: FrameMaps) -> BoolMask:
    """Make a rough mask, at working size: head, trunk, and all prominent pixels in the place of the body."""
    height, width = frame.salient.shape
    mask = np.zeros((height, width), np.uint8)
    x0, y0, x1, y1 = (side * frame.scale for side in person.body)
    if person.face is None:
        centre, axes = ((x0 + x1) / 2, (y0 + y1) / 2), ((x1 - x0) * 0.28, (y1 - y0) * 0.45)
        cv2.ellipse(mask, _round_point(*centre), _round_point(*axes), 0, 0, 360, 1, -1)
        return mask.astype(bool)
    fx0, fy0, fx1, fy1 = (side * frame.scale for side in person.face)
    side, middle = fx1 - fx0, (fx0 + fx1) / 2
    body = np.zeros((height, width), bool)
    body[round(y0) : round(y1), round(x0) : round(x1)] = True
    mask[body & (frame.prominent > _MIN_PROMINENCE)] = 1
    cv2.ellipse(
        mask, _round_point(middle, (fy0 + fy1) / 2), _round_point(0.5 * side, 0.65 * side), 0, 0, 360, 1, -1
    )
    top, bottom = fy1 + 0.35 * side, min(y1, fy1 + 2.8 * side)
    cv2.rectangle(mask, _round_point(middle - 0.3 * side, fy1), _round_point(middle + 0.3 * side, top), 1, -1)
    cv2.rectangle(
        mask, _round_point(middle - 0.9 * side, top), _round_point(middle + 0.9 * side, bottom), 1, -1
    )
    pieces = find_components(close_gaps(mask.astype(bool), 5), 1, mask.size)
    head = (min(round((fy0 + fy1) / 2), height - 1), min(round(middle), width - 1))
    return next((piece for piece in pieces if piece[head]), mask.astype(bool))


def score_person(region: Region, people: list[Person], scale: float) -> float:
    """Score whether a region is a person, 0..1.

    Evidence is a face of plausible size in its upper part, or a pedestrian's box on it.
    """
    box = [side / scale for side in region.box]
    bottom = region.mask.shape[0] / scale
    best = 0.0
    for person in people:
        on_body = person.face is None and compute_box_iou(person.body, box) > 0.5
        if on_body or (person.face is not None and _is_face_plausible(person.face, box, bottom)):
            best = max(best, person.score)
    return best


def _is_face_plausible(face: list[float], box: list[float], bottom: float) -> bool:
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    share = (face[2] - face[0]) * (face[3] - face[1]) / max(1.0, (box[2] - box[0]) * (box[3] - box[1]))
    # A face larger than a third of the region is a head without a body, unless the frame cuts the body off.
    limit = 0.8 if box[3] >= bottom - 2 else 0.33
    upper = box[1] <= y <= box[1] + 0.6 * (box[3] - box[1])
    return bool(box[0] <= x <= box[2] and upper and 0.005 < share < limit)


def _estimate_body(face: list[float], shape: tuple[int, ...]) -> list[float]:
    """Estimate the box of a standing adult from a face box.

    An adult is 7.5 heads tall (drawing canon), and a detector's face box is about 0.8 of a head.
    """
    height, width = shape[:2]
    side, middle = face[2] - face[0], (face[0] + face[2]) / 2
    return [
        max(0.0, middle - 1.5 * side),
        max(0.0, face[1] - 0.3 * side),
        min(float(width), middle + 1.5 * side),
        min(float(height), face[1] + 9 * side),
    ]


def _detect_pedestrians(image: RGB) -> list[tuple[list[float], float]]:
    scale = min(1.0, _HOG_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if small.shape[0] < 128 or small.shape[1] < 64:
        return []
    boxes, weights = _load_hog().detectMultiScale(small, hitThreshold=_HOG_MIN, winStride=(8, 8), scale=1.08)
    found = []
    for (x, y, w, h), weight in zip(boxes, np.ravel(np.asarray(weights)), strict=True):
        # The window of 64 x 128 has a margin of 16 px around the person.
        inner = [x + w / 8, y + h / 10, x + w * 7 / 8, y + h * 9 / 10]
        found.append(([float(side / scale) for side in inner], float(np.clip(weight / _HOG_SURE, 0, 1))))
    return found


def _round_point(x: float, y: float) -> tuple[int, int]:
    return round(x), round(y)


@lru_cache(maxsize=1)
def _load_hog() -> cv2.HOGDescriptor:
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))
    return hog
