"""Score the evidence that a region is a subject, and that a phrase names it.

No number here is learned. Each is a likelihood ratio that we chose for a cue; 1 is no evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import BoolMask
from curation.models.classical.colours import find_colour_terms
from curation.models.classical.frame import FrameMaps
from curation.models.classical.regions import Region, get_ring, get_window
from curation.models.roles import Phrase

F32 = NDArray[np.float32]

# Things that do not move; a moving region is rarely one of them.
_STILL_GROUPS: Final = frozenset({"furniture", "building", "plant", "background"})
_WORN_GROUPS: Final = frozenset({"clothing", "accessory"})
_ALIVE_GROUPS: Final = frozenset({"human", "animal"})
# Things that are round from every side.
_BALLS: Final = frozenset({"ball", "soccer ball", "basketball", "baseball", "volleyball", "balloon", "globe"})
_DISCS: Final = frozenset({"coin", "orange", "apple", "clock", "donut", "pizza", "plate", "sun"})


def select_phrases(phrases: Sequence[Phrase]) -> list[int]:
    """Select the indices of the phrases that this detector can find.

    Backgrounds are no objects. Clothes are parts of the person or animal that wears them, and this detector
    cannot separate the parts. So clothes are left out if a person or an animal is named.
    """
    bearers = any(phrase.group in _ALIVE_GROUPS for phrase in phrases)
    return [
        index
        for index, phrase in enumerate(phrases)
        if phrase.group != "background" and not (bearers and phrase.group in _WORN_GROUPS)
    ]


def weigh_phrase(phrase: Phrase, phrases: Sequence[Phrase]) -> float:
    """Return the weight of a phrase: 0.3 for scenery if another phrase names a more active thing, else 1."""
    others = any(other.group not in _STILL_GROUPS for other in phrases)
    return 0.3 if others and phrase.group in _STILL_GROUPS else 1.0


def score_objectness(region: Region, frame: FrameMaps) -> float:
    """Score how much the region differs from its surroundings by motion, by colour or by both, 0..1.

    The score uses the contrast with the surrounding band, not the value itself. A part of a moving body is
    surrounded by other parts that move, so it scores less than the whole. Colour without motion scores at
    most 0.6, because every landscape has a distinct patch.
    """
    inside = region.mask
    band = get_ring(inside, max(4, round(0.12 * float(np.sqrt(region.area)))))
    if not band.any():
        return 0.0
    unlikely = 1 - 0.6 * _measure_contrast(frame.salient, inside, band)
    if frame.moving is not None:
        unlikely *= 1 - 0.8 * _measure_contrast(frame.moving, inside, band)
        unlikely *= 1 - 0.8 * _measure_contrast(np.sqrt(frame.moving * frame.salient), inside, band)
    prominence = (1 - unlikely) * _score_compactness(inside)
    return float(1 - (1 - prominence) * (1 - 0.6 * region.people))


def score_fit(region: Region, frame: FrameMaps, score: float) -> float:
    """Score how well the region's outline fits a thing, to choose among versions of it.

    The score is a product of three factors: the objectness; the F-measure of the mask against everything
    prominent in its neighbourhood, where a part has low recall and too large a region has low precision; and
    the edges along the outline.

    Args:
        region: the region.
        frame: maps of the frame.
        score: objectness of the region, 0..1.
    """
    near = get_window(region.box, 0.5, region.mask.shape)
    inside, evidence = region.mask[near], frame.prominent[near] ** 2
    held = float(evidence[inside].sum())
    precision, recall = held / max(1, region.area), held / max(1e-6, float(evidence.sum()))
    overlap = 2 * precision * recall / max(1e-6, precision + recall)
    outline = cv2.morphologyEx(region.mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    edges = float(frame.edges[outline == 1].mean()) if outline.any() else 0.0
    return float(np.sqrt(score) * overlap * edges * (1 + 3 * region.people))


def score_affinity(phrase: Phrase, region: Region, frame: FrameMaps) -> float:
    """Return the likelihood ratio of "the phrase names this region" and "the region is of unknown kind"."""
    ratio = _score_kind(phrase, region) * score_colour_match(phrase, region.mask, frame.colours)
    movement = 0.0 if frame.moving is None else float(frame.moving[region.mask].mean())
    if phrase.group in _STILL_GROUPS:
        return ratio * (1 - 0.8 * movement)
    # The region does not move, lacks the colours of the phrase and shows no person, so it may be anything.
    # The ratio is lower still if the phrase names a living thing and another region moves.
    least = 0.5
    if phrase.group in _ALIVE_GROUPS and frame.moving is not None and float(frame.moving.max()) > 0.5:
        least = 0.4
    elif find_colour_terms(phrase.text):
        least = 1.0
    known = max(min(1.0, movement / 0.3), region.people)
    return ratio * (least + (1 - least) * known)


def score_colour_match(phrase: Phrase, mask: BoolMask, colours: dict[str, F32]) -> float:
    """Return the likelihood ratio of the phrase's colour terms; 1 without any, 0.15 without such pixels."""
    terms = find_colour_terms(phrase.text)
    if not terms:
        return 1.0
    share = measure_colour_share(terms, mask, colours)
    least = min(float(colours[term][mask].mean()) for term in terms)
    if phrase.group == "human":  # the colour of clothes or hair, which are a part of the region
        return 0.7 + 1.3 * min(1.0, share / 0.3)
    if least < 0.08:
        share *= 0.6
    # About half of a thing has the colour that names it; a tenth (a red motorcycle) is still evidence.
    return 0.15 + 3.85 * float(min(1.0, share / 0.6) ** 0.6)


def measure_colour_share(terms: Sequence[str], mask: BoolMask, colours: dict[str, F32]) -> float:
    """Measure the share of the masked pixels that one of the terms names, 0..1; 0 for an empty mask."""
    if not mask.any():
        return 0.0
    return float(np.max([colours[term][mask] for term in terms], axis=0).mean())


def is_moving_apart(region: Region, frame: FrameMaps) -> bool:
    """Return whether the region moves differently from its surroundings; false if motion was not measured.

    It does if one speed is 1.5 times the other, or if one of the two is at rest: for example a ball in front
    of a player, but not the tank of a motorcycle.
    """
    if frame.moving is None:
        return False
    band = get_ring(region.mask, max(3, round(0.2 * float(np.sqrt(region.area)))))
    shares = [float(np.clip(frame.moving[part].mean(), 0, 0.98)) for part in (region.mask, band)]
    slow, fast = sorted(share / (1 - share) for share in shares)
    return fast > 0.4 and fast > 1.5 * slow


def measure_roundness(mask: BoolMask) -> float:
    """Return the mask's area / the area of its smallest enclosing circle, 0..1; 1 for a disc."""
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    _, radius = cv2.minEnclosingCircle(points)
    return float(min(1.0, mask.sum() / (np.pi * (radius + 0.5) ** 2)))


def _measure_contrast(values: F32, inside: BoolMask, band: BoolMask) -> float:
    return float(np.clip(1.6 * (values[inside].mean() - values[band].mean()), 0, 1))


def _score_compactness(mask: BoolMask) -> float:
    """Score the share of its convex hull that a mask fills, 0.3..1. Subjects are rarely below a half."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(contours))
    share = float(mask.sum()) / max(1.0, cv2.contourArea(hull))
    return float(np.clip(share / 0.55, 0.3, 1))


def _score_kind(phrase: Phrase, region: Region) -> float:
    """Return the likelihood ratio of kind: strong for detected people, weak for an upright or round shape."""
    x0, y0, x1, y1 = region.box
    upright = (y1 - y0) / max(1.0, x1 - x0)
    disc = float(np.clip((measure_roundness(region.mask) - 0.72) / 0.16, 0, 1))
    people = region.people
    if phrase.group == "human":
        shape = float(np.clip(upright / 1.1, 0.35, 1.6)) * (1 - 0.93 * disc)
        return (1 - people) * 0.8 * shape + people * 6
    shape = 1.0
    if phrase.group == "animal":
        shape = float(np.clip(1.1 / upright, 0.5, 1.15)) * (1 - 0.93 * disc)
    elif phrase.category in _BALLS or phrase.category in _DISCS:
        # A ball is round from every side; a flat disc is not.
        shape = 0.4 + 1.6 * disc if phrase.category in _BALLS else 0.7 + 1.1 * disc
    return (1 - people) * shape + people * 0.1
