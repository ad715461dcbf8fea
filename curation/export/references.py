"""Which references of a clip go: some per subject, drawn by variant."""

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
    """A reference that goes."""

    subject_id: str
    reference_id: str
    variant: str


def draw_references(
    subjects: Sequence[dict[str, Any]], config: ExportReferencesConfig, seed: int, limit: int | None
) -> list[DrawnReference]:
    """Draw references of each subject, in the order of the subjects.

    The draw depends on the subject's id, the settings and the seed alone. Where the limit allows fewer
    pictures than are drawn, each subject keeps its first one before any keeps a second.

    Args:
        subjects: of one clip.
        config: shares of variants, and pictures per subject.
        seed: of the draw.
        limit: pictures per clip; None: no limit.
    """
    drawn = [_draw_of_subject(subject, config, seed) for subject in subjects]
    chosen: set[str] = set()
    for place in range(config.per_subject):
        for references in drawn:
            if place < len(references) and (limit is None or len(chosen) < limit):
                chosen.add(references[place].reference_id)
    return [each for references in drawn for each in references if each.reference_id in chosen]


def _draw_of_subject(
    subject: dict[str, Any], config: ExportReferencesConfig, seed: int
) -> list[DrawnReference]:
    """Draw without replacement: first a variant by its share, then one of its pictures."""
    left: dict[str, list[str]] = {}
    for reference in list_references(subject):
        if config.shares.get(reference["variant"], 0) > 0:
            left.setdefault(reference["variant"], []).append(reference["reference_id"])
    draw = random.Random(derive_seed(seed, "export", subject["subject_id"]))
    found: list[DrawnReference] = []
    fresh = dict.fromkeys(left)  # variants that are not drawn yet go first
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
