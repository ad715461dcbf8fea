"""Segment subjects in their boxes, and measure the masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import cast

from curation.config import CurationConfig
from curation.filters.geometry import measure_area_share, measure_border_share, measure_overlaps
from curation.imaging.codec import BoolMask, decode_mask, encode_mask
from curation.imaging.row_pictures import get_frame_image
from curation.models import registry
from curation.models.roles import Segmenter
from curation.rows.references import find_mask
from curation.rows.schema import ClipRow, SubjectRow
from curation.rows.stage_names import SEGMENT


class Segment:
    """Segments subjects (Kaleido 3.2 (3)). An empty mask counts as measured: its area share is 0.

    Overlap is measured with all other subjects of the frame: those segmented in it, and those with a mask of
    the tracker in it whose own best frame is another one.
    """

    name = SEGMENT

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._segmenter: Segmenter | None = None

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Segment every subject in its box, and measure its mask."""
        if self._segmenter is None:
            self._segmenter = cast(Segmenter, registry.load_required_backend(self._config, "segmenter"))
        groups: list[list[SubjectRow]] = []
        beside: list[list[BoolMask]] = []
        images = []
        for row in rows:
            by_frame: dict[int, list[SubjectRow]] = defaultdict(list)
            for subject in row["subjects"]:
                if subject["box"] is not None and subject["frame_index"] is not None:
                    by_frame[subject["frame_index"]].append(subject)
            for index, group in by_frame.items():
                images.append(get_frame_image(row, index))
                groups.append(group)
                elsewhere = [each for each in row["subjects"] if each["frame_index"] != index]
                seen = [find_mask(each, index) for each in elsewhere]
                beside.append([decode_mask(mask) for mask in seen if mask is not None])
        boxes = [[subject["box"] or [] for subject in group] for group in groups]
        segmented = self._segmenter.segment(images, boxes)
        for group, others, found in zip(groups, beside, segmented, strict=True):
            for subject, mask, score in zip(group, found.masks, found.scores, strict=True):
                self._measure_mask(subject, mask, score)
            shares = measure_overlaps([*found.masks, *others])[: len(group)]
            for subject, (iou, contained) in zip(group, shares, strict=True):
                subject["scores"].update({"overlap_iou": iou, "overlap_containment": contained})

    def _measure_mask(self, subject: SubjectRow, mask: BoolMask, score: float) -> None:
        subject["mask"] = encode_mask(mask) if mask.any() else None
        subject["scores"].update(
            {
                "segment": float(score),
                "area_share": measure_area_share(mask),
                "border_share": measure_border_share(mask),
            }
        )
        registry.record_model(subject, "segmenter", self._segmenter)
