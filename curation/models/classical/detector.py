"""Boxes for phrases without any learned vision-language model.

What moves against the camera, what has the colour that a phrase names, what stands out and where a face or a
pedestrian is seen become regions (`proposals`); regions and phrases are then matched (`matching`) by what
speaks for each pair (`evidence`). What cannot be told apart gets a low `label`, and the verdict rejects it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from curation.imaging.codec import RGB
from curation.models.classical import evidence, people, proposals
from curation.models.classical.colours import colour_terms
from curation.models.classical.frame import Frame, measure
from curation.models.classical.matching import marginals
from curation.models.classical.regions import Region
from curation.models.roles import Detection, Phrase, Scene

_ABSENT = 0.15  # weight of "the phrase names nothing that was found", against objectness of a region
_MAX_COUNT = 4  # boxes for a plural without a number
_MAX_SLOTS = 8
_MIN_OBJECTNESS = 0.1


class EmbeddedDetector:
    """roles.Detector."""

    name = "embedded-detector"
    revision = f"1-cv{cv2.__version__}"

    def detect(self, scenes: Sequence[Scene], phrases: Sequence[Sequence[Phrase]]) -> list[list[Detection]]:
        """For each scene, boxes of its phrases in pixels of its image; best first."""
        return [detect_scene(scene, asked) for scene, asked in zip(scenes, phrases, strict=True)]


def detect_scene(scene: Scene, phrases: Sequence[Phrase]) -> list[Detection]:
    """Boxes of one scene's phrases; phrases that cannot be looked for here get none."""
    indices = evidence.wanted(phrases)
    asked = [phrases[index] for index in indices]
    if not asked:
        return []
    frame = measure(scene, asked)
    seen = people.find_people(scene.image) if any(phrase.group == "human" for phrase in asked) else []
    found, scores = find_regions(frame, asked, seen)
    if not found:
        return []
    slots = _slots(asked)
    fits = np.array([[evidence.affinity(phrase, region, frame) for region in found] for phrase in asked])
    fits *= np.array([[evidence.prior(phrase, asked)] for phrase in asked])
    table = marginals((fits * np.array(scores))[slots], _ABSENT)
    detections = []
    for position, index in enumerate(indices):
        rows = [row for row, slot in enumerate(slots) if slot == position]
        belief = table[rows].sum(axis=0)  # the slots of one phrase are interchangeable
        for best in np.argsort(-belief, kind="stable")[: len(rows)]:
            box = _inside([side / frame.scale for side in found[best].box], scene.image)
            label = float(min(1.0, belief[best]))
            detections.append(Detection(index, box, float(scores[best]), label))
    return sorted(detections, key=lambda detection: -detection.score * detection.label)


def find_regions(
    frame: Frame, phrases: Sequence[Phrase], seen: list[people.Person]
) -> tuple[list[Region], list[float]]:
    """Disjoint regions and their objectness, best first."""
    # A person's colour words are about clothes, a part of the person: they are evidence, not seeds.
    sought = [colour_terms(phrase.text) for phrase in phrases if phrase.group != "human"]
    named = [np.max([frame.colours[term] for term in terms], axis=0) for terms in sought if terms]
    bodies = [people.body_seed(person, frame) for person in seen[:3]]
    rough = proposals.seeds(frame, named, [body for body in bodies if body.any()])
    grown = proposals.regions(frame.image, rough)
    grown = [replace(each, people=people.person_evidence(each, seen, frame.scale)) for each in grown]
    scores = [evidence.objectness(each, frame) for each in grown]
    fits = [evidence.fit(each, frame, score) for each, score in zip(grown, scores, strict=True)]
    several = sum(phrase.count or _MAX_COUNT for phrase in phrases) > 1
    apart = {index for index, each in enumerate(grown) if several and _apart(each, grown, frame)}
    kept = [
        index for index in proposals.disjoint(grown, fits, several, apart) if scores[index] >= _MIN_OBJECTNESS
    ]
    return [grown[index] for index in kept], [scores[index] for index in kept]


def _apart(region: Region, others: Sequence[Region], frame: Frame) -> bool:
    """Found by its colour, and either moving on its own or one of several alike: no mere part of a whole."""
    if region.seed != "colour":
        return False
    alike = [
        other
        for other in others
        if other.seed == "colour" and other is not region and 0.5 < other.area / region.area < 2
    ]
    return len(alike) > 1 or evidence.moves_apart(region, frame)


def _slots(phrases: Sequence[Phrase]) -> list[int]:
    """Position of the phrase that each wanted box belongs to: "three cups" is three of them."""
    counts = [min(phrase.count or _MAX_COUNT, _MAX_SLOTS) for phrase in phrases]
    while sum(counts) > _MAX_SLOTS and max(counts) > 1:
        counts[int(np.argmax(counts))] -= 1
    return [position for position, count in enumerate(counts) for _ in range(count)]


def _inside(box: list[float], image: RGB) -> list[float]:
    height, width = image.shape[:2]
    return [min(max(side, 0.0), float(limit)) for side, limit in zip(box, (width, height) * 2, strict=True)]
