"""Raw video -> clips, in one decode: each frame feeds the shot detector, the cut, the samples, the motion."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, takewhile
from math import ceil, inf
from pathlib import Path

import numpy as np

from curation.config import SliceConfig
from curation.video.cut import CopiedCut, Cut, EncodedCut, PacketLog, may_copy, starts_afresh
from curation.video.frames import Shapes
from curation.video.sampling import MOTION_GAP_S, Sample, Sampler, Waiting
from curation.video.shots import ShotDetector
from reprise.video.ahead import ahead
from reprise.video.source import (
    BadVideo,
    Decoded,
    Source,
    VideoInfo,
    VideoPacket,
    decode,
    open_video,
    rotation_of,
)

_AHEAD = 2  # frames decoded while the one before is encoded
_LOOKAHEAD_BYTES = 96 << 20
_COMPLETE_SHARE = 0.9  # containers round their frame counts and lengths; below this the file was cut off
_EPSILON_S = 1e-6  # times are sums of floats


@dataclass
class Span:
    """Frames [start_frame, end_frame) of the video: a clip with its file, or the reason why there is none."""

    start_frame: int
    end_frame: int
    start_s: float
    end_s: float
    file: Path | None = None
    cut: str | None = None
    samples: list[Sample] = field(default_factory=list)
    status: str = "open"  # open | rejected | failed | done (an earlier run has it)
    reason: str | None = None
    value: float | None = None
    threshold: float | None = None

    @property
    def num_frames(self) -> int:
        return self.end_frame - self.start_frame

    @property
    def motion(self) -> float | None:
        """Mean residual motion, share of the diagonal per second."""
        return _mean([sample.residual for sample in self.samples])

    @property
    def camera_motion(self) -> float | None:
        """Mean camera motion, same unit."""
        return _mean([sample.camera for sample in self.samples])

    def stop(
        self, status: str, reason: str, value: float | None = None, threshold: float | None = None
    ) -> None:
        self.status, self.reason, self.value, self.threshold = status, reason, value, threshold


class Slicer:
    """Slices one video.

    Args:
        path: a local file.
        config: lengths in seconds, sizes in pixels.
        folder: where the mp4 files of clips are written; the caller moves them away and removes what is left.
        done: first frames of the spans that need not be made again.

    Attributes:
        info, width, height: of the video and, in px, of its clips; known when the first span comes.
    """

    def __init__(
        self, path: Path, config: SliceConfig, folder: Path, done: frozenset[int] = frozenset()
    ) -> None:
        self._path, self._config, self._folder, self._done = path, config, folder, done
        self.info: VideoInfo | None = None
        self.width = self.height = 0

    def run(self) -> Iterator[Span]:
        """Spans in time order: clips, shots that were too short, damaged stretches, a missing tail.

        Raises:
            BadVideo: nothing of the file can be used; the message is the reason.
            Stalled: the decoder hangs.
        """
        limit = self._config.timeout
        with (
            open_video(self._path, limit) as source,
            closing(ahead(decode(source), _AHEAD, limit)) as frames,
        ):
            first = next(frames, None)
            if first is None:
                why = source.damage[0][1] if source.damage else source.ending or "the stream is empty"
                raise BadVideo(f"no frame could be decoded ({why})")
            source.info = self.info = source.info.turned(rotation_of(first.frame))
            work = _Pass(source, self._config, self._folder, self._done)
            self.width, self.height = work.shapes.width, work.shapes.height
            try:
                yield from work.spans(chain([first], frames))
            finally:
                work.abandon()


class _Piece:
    """The clip, or the stretch that will not become one, that frames are being added to."""

    def __init__(self, at: Waiting, cut: Cut | None, file: Path, sampler: Sampler) -> None:
        self.start_frame, self.start_s = at.index, at.time_s
        self.cut, self.file, self.sampler = cut, file, sampler
        self.times = [at.time_s]  # of its frames, and at last the time at which the last one goes

    def add(self, at: Waiting, following: Iterator[Waiting], until_s: float) -> None:
        self.times[-1:] = [at.time_s, until_s]
        if self.cut is not None:
            self.sampler.see(at, following)
            self.cut.add(at.frame, at.pts, at.time_s, until_s - at.time_s)

    def span(self, frames: int | None = None) -> Span:
        """Its first `frames` frames; None: all."""
        count = len(self.times) - 1 if frames is None else frames
        return Span(self.start_frame, self.start_frame + count, self.start_s, self.times[count])


class _Pass:
    """The state of slicing one video."""

    def __init__(self, source: Source, config: SliceConfig, folder: Path, done: frozenset[int]) -> None:
        self._source, self._config, self._folder, self._done = source, config, folder, done
        self._info = info = source.info
        self._log = PacketLog()
        self.shapes = Shapes(info, config.max_short_side)
        self._shots = ShotDetector(config, info.fps)
        self._frame_s = float(1 / info.fps)
        self._lookahead = self._frames_to_hold()
        self._copyable = config.cut == "auto" and may_copy(
            info, source.stream, self.shapes.width, self.shapes.height
        )
        self._pending: deque[Waiting] = deque()
        self._cuts: list[int] = []  # still ahead, in order
        self._piece: _Piece | None = None
        self._layout: tuple[int, int, str] | None = None
        self._frames = 0
        self._end_s: float | None = None  # of the video, once all of it is decoded

    def _frames_to_hold(self) -> int:
        """Frames to hold back: for the detector's delay and a motion to measure and, as far as memory allows,
        for the shortest clip: then it is known where a shot ends before anything too short is written."""
        size = self.shapes.width * self.shapes.height * 3 // 2
        needed = self._shots.max_delay + ceil(MOTION_GAP_S / self._frame_s) + 1
        wanted = self._shots.delay + int(self._config.min_length / self._frame_s) + 2
        return max(needed, min(wanted, _LOOKAHEAD_BYTES // size))

    def spans(self, frames: Iterator[Decoded]) -> Iterator[Span]:
        with closing(ahead(self._look(frames), _AHEAD)) as looked:
            for waiting, packets, cuts in looked:
                self._hold(waiting, packets, cuts)
                if len(self._pending) > self._lookahead:
                    yield from self._consume(self._pending.popleft())
        for cut in self._shots.finish():
            insort(self._cuts, cut)
        self._end_s = self._pending[-1].time_s + self._frame_s
        while self._pending:
            yield from self._consume(self._pending.popleft())
        yield from self._close()
        yield from self._missing()

    def abandon(self) -> None:
        """Leave nothing open behind."""
        if self._piece and self._piece.cut:
            self._piece.cut.abandon()

    def _look(self, frames: Iterator[Decoded]) -> Iterator[tuple[Waiting, list[VideoPacket], list[int]]]:
        """Frames in the shapes that are needed, their packets, and cuts that are certain with them.

        Runs in a thread of its own: it touches nothing that the rest of the pass changes.
        """
        for at in frames:
            layout = (at.frame.width, at.frame.height, at.frame.format.name)
            small, pts = self.shapes.small(at.frame), at.frame.pts
            clip = self.shapes.clip(at.frame)
            waiting = Waiting(at.index, at.time_s, pts, clip, small, layout)
            yield waiting, at.packets, self._shots.push(at.index, small)

    def _hold(self, waiting: Waiting, packets: list[VideoPacket], cuts: list[int]) -> None:
        self._frames += 1
        self._log.extend(packets)
        if self._layout not in (None, waiting.layout):
            # Another encoder took over; packets before and after do not go into one clip.
            insort(self._cuts, waiting.index)
            self._copyable = False
        self._layout = waiting.layout
        for cut in cuts:
            insort(self._cuts, cut)
        self._pending.append(waiting)

    def _consume(self, at: Waiting) -> Iterator[Span]:
        """The next frame, whose shot is known."""
        cut_here = False
        while self._cuts and self._cuts[0] <= at.index:
            # A cut reported after its frames were written takes effect at the first frame still open.
            self._cuts.pop(0)
            cut_here = True
        next_s = self._pending[0].time_s if self._pending else self._end_s or at.time_s + self._frame_s
        if self._piece and (cut_here or self._is_full(self._piece, at, next_s)):
            yield from self._close()
        piece = self._piece = self._piece or self._open(at)
        # A frame that a stalled clock shows for ever is shown no longer than a clip may be.
        longest_s = max(at.time_s + self._frame_s, piece.start_s + self._config.max_length)
        ahead = self._cuts[0] if self._cuts else inf
        same_shot = takewhile(lambda each: each.index < ahead, self._pending)
        piece.add(at, same_shot, min(next_s, longest_s))
        if not isinstance(piece.cut, CopiedCut):
            self._log.forget_before(at.pts)

    def _is_full(self, piece: _Piece, at: Waiting, next_s: float) -> bool:
        """Whether the clip must end before this frame, which is shown until `next_s`.

        Lengths are kept to the nearest frame: 300 frames at 29.97 per second are 10 s. Where the rest of the
        shot would be too short for a clip of its own, the clip ends early enough to leave more of it.
        """
        elapsed, tolerance = at.time_s - piece.start_s, self._frame_s / 2
        if next_s - piece.start_s > self._config.max_length + tolerance + _EPSILON_S:
            return True
        end_s = self._shot_end()
        if end_s is None or elapsed < (end_s - piece.start_s) / 2:
            return False
        excess = end_s - piece.start_s - self._config.max_length
        return tolerance < excess < self._config.min_length <= end_s - at.time_s + _EPSILON_S

    def _shot_end(self) -> float | None:
        """Time at which the shot of the frame at hand ends, where that is known already."""
        if self._cuts:
            for each in self._pending:
                if each.index >= self._cuts[0]:
                    return each.time_s
        return self._end_s

    def _open(self, at: Waiting) -> _Piece:
        file = self._folder / f"{at.index:09d}.mp4"
        sampler = Sampler(at.time_s, self._config.sample_fps, self.shapes)
        return _Piece(at, self._cut(at, file), file, sampler)

    def _cut(self, at: Waiting, file: Path) -> Cut | None:
        """What writes the clip that starts here; None where it is known that there will be none."""
        end_s = self._shot_end()
        too_short = end_s is not None and end_s - at.time_s < self._config.min_length - _EPSILON_S
        if too_short or self._too_small() or at.index in self._done:
            return None
        if self._starts_copy(at):
            return CopiedCut(file, self._log, self._source.stream)
        config = self._config
        return EncodedCut(
            file, self.shapes.width, self.shapes.height, self._info.fps, config.crf, config.preset
        )

    def _starts_copy(self, at: Waiting) -> bool:
        """Whether packets from this frame on show the frames that the decoder gave."""
        packet = self._log.forget_before(at.pts)
        shown = [at.pts, *(each.pts for each in self._pending)]
        if not self._copyable or packet is None or self._log.renewed or None in shown:
            return False
        header = self._source.stream.codec_context.extradata or b""
        return starts_afresh(packet, header) and bool(
            self._log.stretch([pts for pts in shown if pts is not None])
        )

    def _too_small(self) -> bool:
        return min(self.shapes.width, self.shapes.height) < self._config.min_short_side

    def _close(self) -> Iterator[Span]:
        piece, self._piece = self._piece, None
        if piece is None:
            return
        span = piece.span()
        length = span.end_s - span.start_s
        broken = {i: words for i, words in self._source.damage if span.start_frame <= i < span.end_frame}
        if length < self._config.min_length - _EPSILON_S:
            span.stop("rejected", "shot too short", length, self._config.min_length)
        elif self._too_small():
            short_side = min(self.shapes.width, self.shapes.height)
            span.stop("rejected", "frame too small", short_side, self._config.min_short_side)
        elif broken:
            span.stop("failed", f"damaged frames: {next(iter(broken.values()))}", len(broken), 0)
        elif piece.cut is not None:
            span = self._finish(piece, piece.cut)
        if span.start_frame in self._done:
            span.status = "done"
        if span.status != "open" and piece.cut is not None:
            piece.cut.abandon()
        yield span

    def _finish(self, piece: _Piece, cut: Cut) -> Span:
        count = cut.finish()
        span = piece.span(count)
        if not count:
            span = piece.span()
            span.stop("failed", "its packets and its frames do not agree")
        elif span.end_s - span.start_s < self._config.min_length - _EPSILON_S:
            span.stop("rejected", "shot too short", span.end_s - span.start_s, self._config.min_length)
        else:
            span.file, span.cut = piece.file, cut.how
            span.samples = [each for each in piece.sampler.samples if each.index < span.end_frame]
        return span

    def _missing(self) -> Iterator[Span]:
        """What the container promises and the file does not hold."""
        info, end_s = self._info, self._end_s or 0.0
        if info.declared_packets:
            missing, expected = info.declared_packets - self._source.packets, info.declared_packets
        else:
            missing, expected = (round(s / self._frame_s) for s in (info.declared_s - end_s, info.declared_s))
        if missing > (1 - _COMPLETE_SHARE) * expected > 0 or self._source.ending:
            missing = max(1, missing)
            span = Span(self._frames, self._frames + missing, end_s, end_s + missing * self._frame_s)
            why = f" ({self._source.ending})" if self._source.ending else ""
            span.stop(
                "failed", f"the file ends early{why}: frames that could be read", self._frames, expected
            )
            if span.start_frame in self._done:
                span.status = "done"
            yield span


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
