"""From phrases to boxes: each phrase keeps the sampled frame that shows it best."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from curation.config import CurationConfig
from curation.imaging.codec import decode_image
from curation.models import registry
from curation.models.roles import Detection, DetectionScene, Detector, Phrase
from curation.rows.ids import make_instance_id
from curation.rows.lifecycle import make_new_subject, stop_row
from curation.rows.schema import ClipRow, FrameRow, SubjectRow
from curation.rows.stage_names import GROUND


class Ground:
    """Localises phrases (Kaleido 3.2 (3)). A candidate that is found nowhere stays, without a box.

    All boxes of one phrase come from one frame: the one that shows it best.
    """

    name = GROUND

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._detector: Detector | None = None

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Search every phrase in some frames, and give each box a subject of its own."""
        if self._detector is None:
            self._detector = cast(Detector, registry.load_required_backend(self._config, "detector"))
        scenes: list[DetectionScene] = []
        phrases: list[list[Phrase]] = []
        searched: list[list[FrameRow]] = []
        for row in rows:
            row["subjects"] = reset_candidates(row["subjects"])
            frames = pick_spread_frames(row["frames"], self._config.ground.frames)
            searched.append(frames)
            scenes += [build_scene(frame, row["motion_scale"]) for frame in frames]
            phrases += [[build_phrase(subject) for subject in row["subjects"]]] * len(frames)
        found = iter(self._detector.detect(scenes, phrases))
        for row, frames in zip(rows, searched, strict=True):
            per_frame = [(frame["index"], next(found)) for frame in frames]
            row["subjects"] = [
                grounded
                for position, subject in enumerate(row["subjects"])
                for grounded in self._ground_subject(row, subject, position, per_frame)
            ]
            if not frames:
                stop_row(row, "failed", self.name, "the clip has no frames")

    def _ground_subject(
        self, row: ClipRow, subject: SubjectRow, position: int, per_frame: list[tuple[int, list[Detection]]]
    ) -> list[SubjectRow]:
        """One subject per box of the best frame; the candidate itself where there is none."""
        best: tuple[int, list[Detection]] | None = None
        for index, detections in per_frame:
            mine = [each for each in detections if each.phrase == position]
            mine.sort(key=lambda each: -each.score * each.label)
            mine = mine[: min(self._config.ground.max_instances, subject["count"] or 99)]
            if mine and (best is None or _sum_strength(mine) > _sum_strength(best[1])):
                best = index, mine
        if best is None:
            return [subject]
        index, mine = best
        placed = []
        for instance, detection in enumerate(mine):
            each = copy.deepcopy(subject)
            each["subject_id"] = make_instance_id(subject["subject_id"], instance)
            each["instance"] = instance
            each["found_index"] = each["frame_index"] = index
            each["found_box"] = each["box"] = [float(side) for side in detection.box]
            each["scores"] = {"grounding": float(detection.score), "label": float(detection.label)}
            registry.record_model(each, "detector", self._detector)
            placed.append(each)
        return placed


def reset_candidates(subjects: Sequence[SubjectRow]) -> list[SubjectRow]:
    """Return the subjects as `match` made them, so that grounding again starts from phrases alone."""
    return [
        make_new_subject(
            subject["subject_id"],
            category=subject["category"],
            group=subject["group"],
            name=subject["name"],
            phrase=subject["phrase"],
            count=subject["count"],
        )
        for subject in subjects
        if subject["instance"] == 0
    ]


def _sum_strength(detections: Sequence[Detection]) -> float:
    """Rate how well a frame shows a phrase: the sum over its boxes, so that three cups beat two."""
    return sum(each.score * each.label for each in detections)


def pick_spread_frames(frames: Sequence[FrameRow], count: int) -> list[FrameRow]:
    """Pick at most `count` of the frames, evenly spread, in time order."""
    if len(frames) <= count:
        return list(frames)
    steps = (np.arange(count) + 0.5) * len(frames) / count
    return [frames[int(step)] for step in steps]


def build_phrase(subject: SubjectRow) -> Phrase:
    """Build what the detector searches for from a candidate subject."""
    return Phrase(subject["phrase"], subject["category"], subject["group"], subject["count"])


def build_scene(frame: FrameRow, motion_scale: float | None) -> DetectionScene:
    """Decode a stored frame and its motion map, the map to shares of the diagonal per second."""
    motion: NDArray[np.float32] | None = None
    if frame["motion"] is not None and motion_scale:
        motion = decode_image(frame["motion"]).astype(np.float32) * np.float32(motion_scale / 255)
    return DetectionScene(decode_image(frame["image"]), motion)
