"""Boxes -> masks, and the sizes that only a mask gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import cast

from curation.config import CurationConfig
from curation.filters.geometry import area_share, border_share, overlaps
from curation.imaging import BoolMask, encode_mask
from curation.models import registry
from curation.models.roles import Segmenter
from curation.references import frame_image
from curation.schema import ClipRow, SubjectRow


class Segment:
    """Kaleido 3.2 (3), segmentation. An empty mask counts as measured: its area share is 0."""

    name = "segment"

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._segmenter: Segmenter | None = None

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        if self._segmenter is None:
            self._segmenter = cast(Segmenter, registry.required(self._config, "segmenter"))
        groups: list[list[SubjectRow]] = []
        images = []
        for row in rows:
            by_frame: dict[int, list[SubjectRow]] = defaultdict(list)
            for subject in row["subjects"]:
                if subject["box"] is not None and subject["frame_index"] is not None:
                    by_frame[subject["frame_index"]].append(subject)
            for index, group in by_frame.items():
                images.append(frame_image(row, index))
                groups.append(group)
        boxes = [[subject["box"] or [] for subject in group] for group in groups]
        for group, found in zip(groups, self._segmenter.segment(images, boxes), strict=True):
            for subject, mask, score in zip(group, found.masks, found.scores, strict=True):
                self._measure(subject, mask, score)
            for subject, (iou, contained) in zip(group, overlaps(found.masks), strict=True):
                subject["scores"].update({"overlap_iou": iou, "overlap_containment": contained})

    def _measure(self, subject: SubjectRow, mask: BoolMask, score: float) -> None:
        subject["mask"] = encode_mask(mask) if mask.any() else None
        subject["scores"].update(
            {"segment": float(score), "area_share": area_share(mask), "border_share": border_share(mask)}
        )
        registry.note(subject, "segmenter", self._segmenter)
