"""How fast a subject moves, and what is behind it: optical flow (proxy replay, appendix A.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.config import CurationConfig
from curation.filters.motion import FLOW_SIDE, Motion, clip_motion
from curation.imaging.codec import RGB, BoolMask, decode, decode_mask
from curation.models import registry
from curation.models.roles import Flow as FlowModel
from curation.rows.references import mask_in
from curation.rows.schema import ClipRow, SubjectRow


class Flow:
    """FlowMag_f and FlowMag_b of A.5 for every subject and, over all of its subjects, for the clip.

    The paper segments a video's first frame and takes flow from there to each later one. Here that is the
    first sampled frame in which the subject's outline is known: where it was followed, the first that shows
    it, else the one in which it was found (of a subject found in the last frame alone: flow to the earlier
    ones). What lies under any subject is no background.
    """

    name = "flow"

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._flow: FlowModel | None = None
        self._loaded = False

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        if not self._loaded:
            self._flow, self._loaded = registry.load(self._config, "flow"), True
        for row in rows:
            row["flow_foreground"] = row["flow_background"] = None
            for subject in row["subjects"]:
                subject["scores"].pop("flow_foreground", None)
                subject["scores"].pop("flow_background", None)
            if self._flow is not None:
                self._measure(row, self._flow)

    def _measure(self, row: ClipRow, model: FlowModel) -> None:
        starts = {subject["subject_id"]: first_seen(row, subject) for subject in row["subjects"]}
        known = sorted({start for start in starts.values() if start is not None})
        if not known or len(row["frames"]) < 2:
            return
        images = [fit(decode(frame["image"])) for frame in row["frames"]]
        flows = {start: self._flows(images, start, model) for start in known}
        for subject in row["subjects"]:
            start = starts[subject["subject_id"]]
            if start is None:
                continue
            scene = _outlines(row, start, images[start].shape[:2])
            motion = clip_motion(flows[start], scene.of[subject["subject_id"]], scene.any)
            subject["scores"].update(
                {"flow_foreground": motion.foreground, "flow_background": motion.background}
            )
            registry.note(subject, "flow", model)
        scene = _outlines(row, known[0], images[known[0]].shape[:2])
        whole: Motion = clip_motion(flows[known[0]], scene.any)
        row["flow_foreground"], row["flow_background"] = whole.foreground, whole.background

    @staticmethod
    def _flows(images: Sequence[RGB], start: int, model: FlowModel) -> list[NDArray[np.float32]]:
        """From one frame to each later one, else to each earlier one, in px of a frame of `FLOW_SIDE`."""
        others = images[start + 1 :] or images[:start]
        scale = np.float32(FLOW_SIDE / max(images[start].shape[:2]))
        return [flow * scale for flow in model.flow([images[start]] * len(others), list(others))]


@dataclass(frozen=True)
class _Outlines:
    """Masks of one frame at the size that flow is measured at: by subject, and all of them together."""

    of: dict[str, BoolMask]
    any: BoolMask


def _outlines(row: ClipRow, position: int, size: tuple[int, int]) -> _Outlines:
    index = row["frames"][position]["index"]
    found = {}
    for subject in row["subjects"]:
        mask = mask_in(subject, index)
        if mask is not None:
            full = decode_mask(mask).astype(np.uint8)
            found[subject["subject_id"]] = cv2.resize(
                full, size[::-1], interpolation=cv2.INTER_NEAREST
            ).astype(bool)
    together = np.zeros(size, bool)
    for each in found.values():
        together |= each
    return _Outlines(found, together)


def first_seen(row: ClipRow, subject: SubjectRow) -> int | None:
    """Position among the row's frames of the first in which a subject's outline is known; None: in none."""
    for position, frame in enumerate(row["frames"]):
        if mask_in(subject, frame["index"]) is not None:
            return position
    return None


def fit(image: RGB) -> RGB:
    """A picture of at most `FLOW_SIDE`: the correlations that RAFT keeps grow with a side's fourth power."""
    height, width = image.shape[:2]
    scale = FLOW_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
