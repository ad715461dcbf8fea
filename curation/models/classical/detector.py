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
from curation.models.classical.colours import find_colour_terms
from curation.models.classical.frame import FrameMaps, measure_frame
from curation.models.classical.matching import compute_marginals
from curation.models.classical.regions import Region
from curation.models.roles import Detection, DetectionScene, Phrase

_ABSENT_WEIGHT = 0.15  # weight of "the phrase names nothing that was found", against objectness of a region
_MAX_COUNT = 4  # boxes for a plural without a number
_MAX_SLOTS = 8
_MIN_OBJECTNESS = 0.1


class ClassicalDetector:
    """roles.Detector."""

    name = "classical-detector"
    revision = f"1-cv{cv2.__version__}"

    def detect(
        self, scenes: Sequence[DetectionScene], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Detection]]:
        """For each scene, boxes of its phrases in pixels of its image; best first."""
        return [
            detect_scene(scene, scene_phrases) for scene, scene_phrases in zip(scenes, phrases, strict=True)
        ]


def detect_scene(scene: DetectionScene, phrases: Sequence[Phrase]) -> list[Detection]:
    """Boxes of one scene's phrases; phrases that cannot be looked for here get none."""
    indices = evidence.select_phrases(phrases)
    sought = [phrases[index] for index in indices]
    if not sought:
        return []
    frame = measure_frame(scene, sought)
    persons = people.find_people(scene.image) if any(phrase.group == "human" for phrase in sought) else []
    found, scores = find_regions(frame, sought, persons)
    if not found:
        return []
    slots = _list_slots(sought)
    fits = np.array(
        [[evidence.score_affinity(phrase, region, frame) for region in found] for phrase in sought]
    )
    fits *= np.array([[evidence.weigh_phrase(phrase, sought)] for phrase in sought])
    table = compute_marginals((fits * np.array(scores))[slots], _ABSENT_WEIGHT)
    detections = []
    for position, index in enumerate(indices):
        rows = [row for row, slot in enumerate(slots) if slot == position]
        belief = table[rows].sum(axis=0)  # the slots of one phrase are interchangeable
        for best in np.argsort(-belief, kind="stable")[: len(rows)]:
            box = _clip_box([side / frame.scale for side in found[best].box], scene.image)
            label = float(min(1.0, belief[best]))
            detections.append(Detection(index, box, float(scores[best]), label))
    return sorted(detections, key=lambda detection: -detection.score * detection.label)


def find_regions(
    frame: FrameMaps, phrases: Sequence[Phrase], persons: list[people.Person]
) -> tuple[list[Region], list[float]]:
    """Disjoint regions and their objectness, best first."""
    # A person's colour words are about clothes, a part of the person: they are evidence, not seeds.
    sought = [find_colour_terms(phrase.text) for phrase in phrases if phrase.group != "human"]
    named = [np.max([frame.colours[term] for term in terms], axis=0) for terms in sought if terms]
    bodies = [people.make_body_seed(person, frame) for person in persons[:3]]
    rough = proposals.make_seeds(frame, named, [body for body in bodies if body.any()])
    grown = proposals.grow_regions(frame.image, rough)
    grown = [replace(each, people=people.score_person(each, persons, frame.scale)) for each in grown]
    scores = [evidence.score_objectness(each, frame) for each in grown]
    fits = [evidence.score_fit(each, frame, score) for each, score in zip(grown, scores, strict=True)]
    several = sum(phrase.count or _MAX_COUNT for phrase in phrases) > 1
    separate = {index for index, each in enumerate(grown) if several and _is_separate(each, grown, frame)}
    kept = [
        index
        for index in proposals.select_disjoint(grown, fits, several, separate)
        if scores[index] >= _MIN_OBJECTNESS
    ]
    return [grown[index] for index in kept], [scores[index] for index in kept]


def _is_separate(region: Region, others: Sequence[Region], frame: FrameMaps) -> bool:
    """Found by its colour, and either moving on its own or one of several alike: no mere part of a whole."""
    if region.seed != "colour":
        return False
    alike = [
        other
        for other in others
        if other.seed == "colour" and other is not region and 0.5 < other.area / region.area < 2
    ]
    return len(alike) > 1 or evidence.is_moving_apart(region, frame)


def _list_slots(phrases: Sequence[Phrase]) -> list[int]:
    """Position of the phrase that each wanted box belongs to: "three cups" is three of them."""
    counts = [min(phrase.count or _MAX_COUNT, _MAX_SLOTS) for phrase in phrases]
    while sum(counts) > _MAX_SLOTS and max(counts) > 1:
        counts[int(np.argmax(counts))] -= 1
    return [position for position, count in enumerate(counts) for _ in range(count)]


def _clip_box(box: list[float], image: RGB) -> list[float]:
    height, width = image.shape[:2]
    return [min(max(side, 0.0), float(limit)) for side, limit in zip(box, (width, height) * 2, strict=True)]
