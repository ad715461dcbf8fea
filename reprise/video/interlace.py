"""Deinterlace frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from av.error import BlockingIOError as NotYetError
from av.error import EOFError as EndError
from av.filter import Graph
from av.video.frame import VideoFrame

if TYPE_CHECKING:
    from reprise.video.decode import DecodedFrame

_TIME_BASE = Fraction(1, 25)  # of the filter only: frames keep their own times


def deinterlace_frames(frames: Iterator[DecodedFrame]) -> Iterator[DecodedFrame]:
    """Yield the same frames, the interlaced ones deinterlaced.

    FFmpeg's bwdif filter returns one frame for one. Other frames pass through it unchanged.
    """
    deinterlacer: _Deinterlacer | None = None
    for decoded in frames:
        if deinterlacer is not None and decoded.stretch != deinterlacer.stretch:
            yield from deinterlacer.flush_frames()
            deinterlacer = None
        if deinterlacer is None and decoded.frame.interlaced_frame:
            deinterlacer = _Deinterlacer(decoded)
        if deinterlacer is None:
            yield decoded
        else:
            yield from deinterlacer.push_frame(decoded)
    if deinterlacer is not None:
        yield from deinterlacer.flush_frames()


class _Deinterlacer:
    def __init__(self, first: DecodedFrame) -> None:
        self.stretch = first.stretch
        self._waiting: deque[DecodedFrame] = deque()
        self._count = 0
        self._graph = Graph()
        frame = first.frame
        self._graph.link_nodes(
            self._graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=_TIME_BASE
            ),
            self._graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced"),
            self._graph.add("buffersink"),
        ).configure()

    def push_frame(self, decoded: DecodedFrame) -> Iterator[DecodedFrame]:
        decoded.frame.pts, decoded.frame.time_base = self._count, _TIME_BASE
        self._count += 1
        self._waiting.append(decoded)
        self._graph.push(decoded.frame)
        yield from self._pull_frames()

    def flush_frames(self) -> Iterator[DecodedFrame]:
        self._graph.push(None)
        yield from self._pull_frames()

    def _pull_frames(self) -> Iterator[DecodedFrame]:
        while self._waiting:
            try:
                frame = self._graph.pull()
            except (NotYetError, EndError):
                return
            assert isinstance(frame, VideoFrame)
            decoded = self._waiting.popleft()
            yield replace(decoded, frame=frame, interlaced=decoded.frame.interlaced_frame)
