"""Measure the optical flow of subjects and of the background (proxy replay, appendix A.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.config import CurationConfig
from curation.filters.motion import FLOW_SIDE, FlowMagnitude, measure_clip_flow
from curation.imaging.codec import RGB, BoolMask, decode_image, decode_mask
from curation.models import registry
from curation.models.roles import FlowEstimator as FlowModel
from curation.rows.references import find_mask
from curation.rows.schema import ClipRow, SubjectRow
from curation.rows.stage_names import FLOW


class Flow:
    """Measures FlowMag_f and FlowMag_b of A.5 for every subject and, over all its subjects, for the clip.

    The paper segments a video's first frame and computes flow from it to each later frame. Here flow starts
    from the first sampled frame with a mask of the subject: the first one that shows a tracked subject, else
    the one in which the detector found it. If that is the last frame, flow goes to the earlier frames. Pixels
    of any subject are not background.
    """

    name = FLOW

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._flow: FlowModel | None = None
        self._loaded = False

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Measure flow for every subject and for the clip. Without a backend the scores stay null."""
        if not self._loaded:
            self._flow, self._loaded = registry.load_backend(self._config, "flow"), True
        for row in rows:
            row["flow_foreground"] = row["flow_background"] = None
            for subject in row["subjects"]:
                subject["scores"].pop("flow_foreground", None)
                subject["scores"].pop("flow_background", None)
            if self._flow is not None:
                self._measure_clip(row, self._flow)

    def _measure_clip(self, row: ClipRow, model: FlowModel) -> None:
        starts = {subject["subject_id"]: find_first_outline(row, subject) for subject in row["subjects"]}
        known = sorted({start for start in starts.values() if start is not None})
        if not known or len(row["frames"]) < 2:
            return
        images = [shrink_image(decode_image(frame["image"])) for frame in row["frames"]]
        flows = {start: self._compute_flows(images, start, model) for start in known}
        for subject in row["subjects"]:
            start = starts[subject["subject_id"]]
            if start is None:
                continue
            scene = _build_frame_masks(row, start, images[start].shape[:2])
            motion = measure_clip_flow(flows[start], scene.by_subject[subject["subject_id"]], scene.union)
            subject["scores"].update(
                {"flow_foreground": motion.foreground, "flow_background": motion.background}
            )
            registry.record_model(subject, "flow", model)
        scene = _build_frame_masks(row, known[0], images[known[0]].shape[:2])
        whole: FlowMagnitude = measure_clip_flow(flows[known[0]], scene.union)
        row["flow_foreground"], row["flow_background"] = whole.foreground, whole.background

    @staticmethod
    def _compute_flows(images: Sequence[RGB], start: int, model: FlowModel) -> list[NDArray[np.float32]]:
        """Compute flow from a frame to the later ones, from the last to the earlier ones; px."""
        others = images[start + 1 :] or images[:start]
        scale = np.float32(FLOW_SIDE / max(images[start].shape[:2]))
        return [flow * scale for flow in model.estimate_flow([images[start]] * len(others), list(others))]


@dataclass(frozen=True)
class _FrameMasks:
    """The masks of one frame at the resolution of flow: by subject id, and their union."""

    by_subject: dict[str, BoolMask]
    union: BoolMask


def _build_frame_masks(row: ClipRow, position: int, size: tuple[int, int]) -> _FrameMasks:
    index = row["frames"][position]["index"]
    found = {}
    for subject in row["subjects"]:
        mask = find_mask(subject, index)
        if mask is not None:
            full = decode_mask(mask).astype(np.uint8)
            found[subject["subject_id"]] = cv2.resize(
                full, size[::-1], interpolation=cv2.INTER_NEAREST
            ).astype(bool)
    together = np.zeros(size, bool)
    for each in found.values():
        together |= each
    return _FrameMasks(found, together)


def find_first_outline(row: ClipRow, subject: SubjectRow) -> int | None:
    """Return the position of the row's first frame with a mask of a subject; None: there is no such frame."""
    for position, frame in enumerate(row["frames"]):
        if find_mask(subject, frame["index"]) is not None:
            return position
    return None


def shrink_image(image: RGB) -> RGB:
    """Shrink a picture to `FLOW_SIDE`, because the memory of RAFT grows with the fourth power of a side."""
    height, width = image.shape[:2]
    scale = FLOW_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
