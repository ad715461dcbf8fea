"""Draw the references of a clip to export: some per subject, by the weights of variants."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curation.export.config import ExportReferencesConfig
from curation.export.facts import list_references
from curation.rows.ids import derive_seed


@dataclass(frozen=True)
class DrawnReference:
    """A reference that will be exported."""

    subject_id: str
    reference_id: str
    variant: str


def draw_references(
    subjects: Sequence[dict[str, Any]], config: ExportReferencesConfig, seed: int, limit: int | None
) -> list[DrawnReference]:
    """Draw references of each subject, in the order of the subjects.

    The draw depends only on the subject's id, the settings and the seed. If `limit` allows fewer pictures
    than were drawn, every subject keeps its first picture before any subject keeps a second one.

    Args:
        subjects: the subjects of one clip.
        config: weights of variants, and pictures per subject.
        seed: the seed of the draw.
        limit: the largest number of pictures per clip; None: no limit.
    """
    drawn = [_draw_subject_references(subject, config, seed) for subject in subjects]
    chosen: set[str] = set()
    for place in range(config.per_subject):
        for references in drawn:
            if place < len(references) and (limit is None or len(chosen) < limit):
                chosen.add(references[place].reference_id)
    return [each for references in drawn for each in references if each.reference_id in chosen]


def _draw_subject_references(
    subject: dict[str, Any], config: ExportReferencesConfig, seed: int
) -> list[DrawnReference]:
    """Draw without replacement: first a variant by its weight, then one of its pictures uniformly."""
    left: dict[str, list[str]] = {}
    for reference in list_references(subject):
        if config.shares.get(reference["variant"], 0) > 0:
            left.setdefault(reference["variant"], []).append(reference["reference_id"])
    draw = random.Random(derive_seed(seed, "export", subject["subject_id"]))
    found: list[DrawnReference] = []
    fresh = dict.fromkeys(left)  # variants that were not drawn yet have priority
    while left and len(found) < config.per_subject:
        names = sorted(fresh) or sorted(left)
        variant = draw.choices(names, [config.shares[name] for name in names])[0]
        pictures = left[variant]
        reference_id = pictures.pop(draw.randrange(len(pictures)))
        found.append(DrawnReference(subject["subject_id"], reference_id, variant))
        fresh.pop(variant, None)
        if not pictures:
            del left[variant]
    return found
