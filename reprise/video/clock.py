"""The time of each frame, and where a video has a gap."""

from __future__ import annotations

from av.video.frame import VideoFrame

_GAP_S = 2.0
_GAP_STEPS = 8  # of the usual time between frames, for slow videos


class FrameClock:
    """Time of frames in seconds from the first one.

    It increases with each frame, even where the stamps do not.

    Args:
        step_s: usual time between frames.
        by_decoding: use decoding stamps. AVI has no others, and in display order they are correct.
    """

    def __init__(self, step_s: float, *, by_decoding: bool = False) -> None:
        self._step_s, self._by_decoding = step_s, by_decoding
        self._first_s: float | None = None
        self._last_s: float | None = None

    def read_time(self, frame: VideoFrame) -> float:
        """Return the time of the next frame."""
        stamp_s = self._read_stamp(frame)
        if self._last_s is None:
            self._first_s, self._last_s = stamp_s, 0.0
            return 0.0
        guess_s = self._last_s + self._step_s
        time_s = guess_s if stamp_s is None or self._first_s is None else stamp_s - self._first_s
        self._last_s = time_s if time_s > self._last_s else guess_s
        return self._last_s

    def _read_stamp(self, frame: VideoFrame) -> float | None:
        if self._by_decoding:  # the last frames, which wait in the decoder, have no stamp of either kind
            return float(frame.dts * frame.time_base) if frame.dts is not None and frame.time_base else None
        return float(frame.time) if frame.time is not None else None


def is_gap(before_s: float, after_s: float, step_s: float) -> bool:
    """Return whether frames are missing between two successive ones, from their times in seconds.

    Args:
        before_s: time of the earlier frame.
        after_s: time of the later frame.
        step_s: usual time between frames.
    """
    return after_s - before_s > max(_GAP_S, _GAP_STEPS * step_s)
