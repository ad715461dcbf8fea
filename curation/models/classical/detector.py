"""Find boxes for phrases without a learned vision-language model.

Regions are proposed (`proposals`) from four sources: motion against the camera, colours that a phrase names,
saliency, and detected faces and pedestrians. Regions and phrases are then matched (`matching`) by the
evidence for each pair (`evidence`). A box that fits several phrases equally gets a low `label`, and the
verdict rejects it.
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

_ABSENT_WEIGHT = 0.15  # weight of "the phrase names no region", relative to the objectness of a region
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
        """Find boxes of the phrases in each scene, in pixels of its image, the best first."""
        return [
            detect_scene(scene, scene_phrases) for scene, scene_phrases in zip(scenes, phrases, strict=True)
        ]


def detect_scene(scene: DetectionScene, phrases: Sequence[Phrase]) -> list[Detection]:
    """Find boxes of one scene's phrases. Phrases that `select_phrases` leaves out get none."""
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
    """Find disjoint regions and their objectness, 0..1, the best first."""
    # Colour terms of a person describe clothes, which are only a part. They are evidence, not seeds.
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
    """Return whether a region is a thing of its own and no part of another one.

    It is if its colour proposed it, and if it moves on its own or is one of several similar regions.
    """
    if region.seed != "colour":
        return False
    alike = [
        other
        for other in others
        if other.seed == "colour" and other is not region and 0.5 < other.area / region.area < 2
    ]
    return len(alike) > 1 or evidence.is_moving_apart(region, frame)


def _list_slots(phrases: Sequence[Phrase]) -> list[int]:
    """List for each wanted box the index of its phrase: "three cups" gives three boxes."""
    counts = [min(phrase.count or _MAX_COUNT, _MAX_SLOTS) for phrase in phrases]
    while sum(counts) > _MAX_SLOTS and max(counts) > 1:
        counts[int(np.argmax(counts))] -= 1
    return [position for position, count in enumerate(counts) for _ in range(count)]


def _clip_box(box: list[float], image: RGB) -> list[float]:
    height, width = image.shape[:2]
    return [min(max(side, 0.0), float(limit)) for side, limit in zip(box, (width, height) * 2, strict=True)]
