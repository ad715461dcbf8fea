"""Measure every found subject, then decide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from curation.config import CurationConfig
from curation.filters.category import measure_category
from curation.filters.faces import measure_faces
from curation.filters.quality import brightness, sharpness
from curation.imaging import RGB, decode, decode_mask, pad_box
from curation.models import registry
from curation.schema import ClipRow, SubjectRow
from curation.taxonomy import Taxonomy
from curation.thresholds import rules
from curation.verdicts import decide_clip

_HUMAN = "human"
_FACE_MARGIN = 0.1  # a box around the body often cuts the hair off; face detectors want it
_CATEGORY_PROMPT = "a photo of a {}"


class Filter:
    """Kaleido 3.2 (4). A role that nobody answers leaves its scores null, which never rejects."""

    name = "filter"

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._loaded = False

    def _load(self) -> None:
        self._faces: Any = registry.load(self._config, "faces")
        self._scorer: Any = registry.load(self._config, "scorer")
        self._categories = (
            list(Taxonomy.load(self._config.match.taxonomy).categories) if self._scorer is not None else []
        )
        self._rules = rules(self._config.filter)
        self._loaded = True

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        if not self._loaded:
            self._load()
        crops: list[tuple[SubjectRow, RGB]] = []
        for row in rows:
            images = {frame["index"]: frame["image"] for frame in row["frames"]}
            decoded: dict[int, RGB] = {}
            for subject in row["subjects"]:
                index, box = subject["frame_index"], subject["box"]
                if index is None or box is None or subject["mask"] is None:
                    continue
                if index not in decoded:
                    decoded[index] = decode(images[index])
                image = decoded[index]
                self._quality(subject, image)
                x0, y0, x1, y1 = pad_box(box, _FACE_MARGIN, image.shape[1], image.shape[0])
                crops.append((subject, image[y0:y1, x0:x1]))
        self._look_for_faces([each for each in crops if each[0]["group"] == _HUMAN])
        self._check_category(crops)
        for row in rows:
            decide_clip(row, self._rules)
            keep_needed_frames(row)

    def _quality(self, subject: SubjectRow, image: RGB) -> None:
        assert subject["mask"] is not None
        mask = decode_mask(subject["mask"])
        mean, clipped = brightness(image, mask)
        subject["scores"].update(
            brightness=mean, clipped_share=clipped, sharpness=sharpness(image, mask)
        )

    def _look_for_faces(self, humans: Sequence[tuple[SubjectRow, RGB]]) -> None:
        if self._faces is None or not humans:
            return
        for (subject, crop), faces in zip(
            humans, self._faces.faces([crop for _, crop in humans]), strict=True
        ):
            subject["scores"].update(measure_faces(faces, crop.shape[1], crop.shape[0]))
            _made_by(subject, "faces", self._faces)

    def _check_category(self, crops: Sequence[tuple[SubjectRow, RGB]]) -> None:
        if self._scorer is None or not crops:
            return
        texts = [_CATEGORY_PROMPT.format(category) for category in self._categories]
        scored = self._scorer.score([crop for _, crop in crops], texts)
        for (subject, _), probabilities in zip(crops, scored, strict=True):
            subject["scores"].update(measure_category(probabilities, self._categories, subject["category"]))
            _made_by(subject, "scorer", self._scorer)


def _made_by(subject: SubjectRow, role: str, backend: Any) -> None:
    made_by = json.loads(subject["made_by"] or "{}")
    made_by[role] = registry.identity(backend)
    subject["made_by"] = json.dumps(made_by, sort_keys=True)


def keep_needed_frames(row: ClipRow) -> None:
    """Free the samples that nothing refers to: the subjects' frames stay, else the middle one as a poster."""
    used = {subject["frame_index"] for subject in row["subjects"] if subject["frame_index"] is not None}
    if not used and row["frames"]:
        used = {row["frames"][len(row["frames"]) // 2]["index"]}
    row["frames"] = [frame for frame in row["frames"] if frame["index"] in used]
    for frame in row["frames"]:
        frame["motion"] = None
