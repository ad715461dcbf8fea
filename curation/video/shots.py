"""Detect shots with PySceneDetect, one small frame at a time."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scenedetect.common import FrameTimecode
from scenedetect.detector import SceneDetector
from scenedetect.detectors import AdaptiveDetector, ContentDetector, ThresholdDetector

from curation.config import SliceConfig

_ADAPTIVE_WINDOW = 2  # frames on either side, PySceneDetect's default


class ShotDetector:
    """Reports the first frame of each new shot as soon as PySceneDetect is certain.

    A fade is cut in its middle, and reported when the picture is back.

    Attributes:
        delay: frames after which a hard cut is reported.
        max_delay: the same where several cuts come close together and are merged.
    """

    def __init__(self, config: SliceConfig, fps: Fraction) -> None:
        self._origin = FrameTimecode(0, fps=fps)
        length = max(1, round(config.min_shot * fps))
        self._detector = _build_detector(config, length)
        self.delay = _ADAPTIVE_WINDOW if config.detector == "adaptive" else 0
        self.max_delay = 0 if self._detector is None else max(self.delay, length)
        self._last = 0

    def push_frame(self, index: int, small_bgr: NDArray[np.uint8]) -> list[int]:
        """Add the next frame; return the cuts that are certain now, each the first frame of a new shot."""
        self._last = index
        if self._detector is None:
            return []
        return [cut.frame_num for cut in self._detector.process_frame(self._make_timecode(index), small_bgr)]

    def flush_cuts(self) -> list[int]:
        """Return the cuts that are certain only at the end of the video."""
        if self._detector is None:
            return []
        return [cut.frame_num for cut in self._detector.post_process(self._make_timecode(self._last))]

    def _make_timecode(self, index: int) -> FrameTimecode:
        return FrameTimecode(index, fps=self._origin)


def _build_detector(config: SliceConfig, length: int) -> SceneDetector | None:
    given = {} if config.threshold is None else {"threshold": config.threshold}
    if config.detector == "content":
        return ContentDetector(min_scene_len=length, **given)
    if config.detector == "adaptive":
        adaptive = {} if config.threshold is None else {"adaptive_threshold": config.threshold}
        return AdaptiveDetector(min_scene_len=length, window_width=_ADAPTIVE_WINDOW, **adaptive)
    if config.detector == "threshold":
        return ThresholdDetector(
            min_scene_len=length, **{name: math.floor(value) for name, value in given.items()}
        )
    return None
