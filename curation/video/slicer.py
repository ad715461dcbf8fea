"""Cut a raw video into clips in one decode.

Each frame feeds the shot detector, the cut, samples and motion.
"""

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
from av.video.frame import VideoFrame

from curation.config import SliceConfig
from curation.video.cut import ClipCopier, ClipEncoder, ClipWriter, PacketLog, can_copy, is_clean_keyframe
from curation.video.frames import FrameScaler
from curation.video.sampling import MOTION_GAP_S, FrameSampler, PendingFrame, SampledFrame
from curation.video.shots import ShotDetector
from reprise.video.ahead import run_ahead
from reprise.video.colour import SDR
from reprise.video.decode import DecodedFrame, decode_frames
from reprise.video.errors import BadVideoError
from reprise.video.info import VideoInfo
from reprise.video.open_video import OpenVideo, VideoPacket, open_video

_FRAMES_AHEAD = 2  # frames decoded while the previous one is encoded
_LOOKAHEAD_BYTES = 96 << 20
_COMPLETE_SHARE = (
    0.9  # containers round their frame counts and lengths; below this share the file was cut off
)
_EPSILON_S = 1e-6  # times are sums of floats


@dataclass
class Span:
    """Frames [start_frame, end_frame) of the video: a clip with its file, or the reason why there is none."""

    start_frame: int
    end_frame: int
    start_s: float
    end_s: float
    width: int = 0  # of its frames as clips have them, px
    height: int = 0
    file: Path | None = None
    cut: str | None = None
    interlaced: bool = False  # whether some of its frames were interlaced in the source
    transfer: str = SDR  # transfer curve of the source: sdr, hlg, pq
    samples: list[SampledFrame] = field(default_factory=list)
    status: str = "open"  # open | rejected | failed | done (an earlier run made it)
    reason: str | None = None
    value: float | None = None
    threshold: float | None = None

    @property
    def num_frames(self) -> int:
        """Number of its frames."""
        return self.end_frame - self.start_frame

    @property
    def motion(self) -> float | None:
        """Mean residual motion, share of the diagonal per second."""
        return _compute_mean([sample.residual for sample in self.samples])

    @property
    def camera_motion(self) -> float | None:
        """Mean camera motion, same unit."""
        return _compute_mean([sample.camera for sample in self.samples])

    def set_outcome(
        self, status: str, reason: str, value: float | None = None, threshold: float | None = None
    ) -> None:
        """Record why the span gives no clip: `value` did not reach `threshold`."""
        self.status, self.reason, self.value, self.threshold = status, reason, value, threshold


class Slicer:
    """Slices one video.

    Args:
        path: a local file.
        config: lengths in seconds, sizes in pixels.
        folder: for the mp4 files of clips; the caller moves the files, then removes the folder.
        done: first frames of the spans that an earlier run made.

    Attributes:
        info: metadata of the video; set before the first span is yielded.
    """

    def __init__(
        self, path: Path, config: SliceConfig, folder: Path, done: frozenset[int] = frozenset()
    ) -> None:
        self._path, self._config, self._folder, self._done = path, config, folder, done
        self.info: VideoInfo | None = None

    def slice_video(self) -> Iterator[Span]:
        """Yield spans in time order: clips, shots that are too short, damaged stretches, a missing end.

        Raises:
            BadVideoError: no part of the file can be used; the message is the reason.
            StalledError: the decoder hangs.
        """
        limit = self._config.timeout
        with (
            open_video(self._path, limit) as source,
            closing(run_ahead(decode_frames(source), _FRAMES_AHEAD, limit)) as frames,
        ):
            first = next(frames, None)
            if first is None:
                why = source.damage[0][1] if source.damage else source.end_reason or "the stream is empty"
                raise BadVideoError(f"no frame could be decoded ({why})")
            source.info = self.info = source.info.with_geometry(first.geometry)
            work = _SlicingPass(source, self._config, self._folder, self._done)
            try:
                yield from work.iterate_spans(chain([first], frames))
            finally:
                work.discard_piece()


class _Piece:
    """The open clip, or the open stretch that will not become one."""

    def __init__(
        self, pending: PendingFrame, writer: ClipWriter | None, file: Path, sampler: FrameSampler
    ) -> None:
        self.start_frame, self.start_s = pending.index, pending.time_s
        self.width, self.height = pending.frame.width, pending.frame.height
        self.interlaced, self.transfer = pending.interlaced, pending.transfer
        self.writer, self.file, self.sampler = writer, file, sampler
        self.times = [pending.time_s]  # start of each frame, then the end of the last one

    def add_frame(self, pending: PendingFrame, following: Iterator[PendingFrame], until_s: float) -> None:
        self.times[-1:] = [pending.time_s, until_s]
        self.interlaced |= pending.interlaced
        if self.writer is not None:
            self.sampler.add_frame(pending, following)
            self.writer.add_frame(pending.frame, pending.pts, pending.time_s, until_s - pending.time_s)

    def make_span(self, frames: int | None = None) -> Span:
        """Return the span of its first `frames` frames; None: of all."""
        count = len(self.times) - 1 if frames is None else frames
        end_frame, end_s = self.start_frame + count, self.times[count]
        return Span(
            self.start_frame,
            end_frame,
            self.start_s,
            end_s,
            self.width,
            self.height,
            interlaced=self.interlaced,
            transfer=self.transfer,
        )


class _SlicingPass:
    """The state of slicing one video."""

    def __init__(self, source: OpenVideo, config: SliceConfig, folder: Path, done: frozenset[int]) -> None:
        self._source, self._config, self._folder, self._done = source, config, folder, done
        self._info = info = source.info
        self._log = PacketLog()
        self._scaler = FrameScaler(info.geometry, config.max_short_side)
        self._shots = ShotDetector(config, info.fps)
        self._frame_s = float(1 / info.fps)
        self._copyable = config.cut == "auto" and can_copy(
            info, source.stream, self._scaler.width, self._scaler.height
        )
        self._pending: deque[PendingFrame] = deque()
        self._cuts: list[int] = []  # still ahead, in order
        self._piece: _Piece | None = None
        self._stretch = 0
        self._frames = 0
        self._end_s: float | None = None  # of the video, once all of it is decoded

    def _count_held_frames(self, frame: VideoFrame) -> int:
        """Return how many frames are held back before they are written.

        They cover the detector's delay and the gap over which motion is measured. As far as memory allows,
        they also cover the shortest clip, so that no clip is written that turns out to be too short.
        """
        size = frame.width * frame.height * 3 // 2
        needed = self._shots.max_delay + ceil(MOTION_GAP_S / self._frame_s) + 1
        wanted = self._shots.delay + int(self._config.min_length / self._frame_s) + 2
        return max(needed, min(wanted, _LOOKAHEAD_BYTES // size))

    def iterate_spans(self, frames: Iterator[DecodedFrame]) -> Iterator[Span]:
        with closing(run_ahead(self._prepare_frames(frames), _FRAMES_AHEAD)) as prepared:
            for pending, packets, cuts in prepared:
                self._queue_frame(pending, packets, cuts)
                while len(self._pending) > self._count_held_frames(pending.frame):
                    yield from self._consume_frame(self._pending.popleft())
        for cut in self._shots.flush_cuts():
            insort(self._cuts, cut)
        self._cut_off_damaged_end()
        self._end_s = self._pending[-1].time_s + self._frame_s
        while self._pending:
            yield from self._consume_frame(self._pending.popleft())
        yield from self._close_piece()
        yield from self._report_missing()

    def _cut_off_damaged_end(self) -> None:
        """Where a file breaks off within a frame, the frames before it are a clip without it.

        So it is wherever the frames after the first damaged one are too few for a clip of their own.
        """
        damaged = {index for index, _ in self._source.damage}
        last_s = self._pending[-1].time_s + self._frame_s
        for each in self._pending:
            begins = each.index in damaged and each.index - 1 not in damaged
            if begins and last_s - each.time_s < self._config.min_length:
                insort(self._cuts, each.index)
                return

    def discard_piece(self) -> None:
        """Remove the open clip."""
        if self._piece and self._piece.writer:
            self._piece.writer.remove_file()

    def _prepare_frames(
        self, frames: Iterator[DecodedFrame]
    ) -> Iterator[tuple[PendingFrame, list[VideoPacket], list[int]]]:
        """Yield frames in the needed shapes, their packets, and the cuts that are certain now.

        This runs in its own thread, and changes nothing that the rest of the pass uses.
        """
        scaler, shots = self._scaler, self._shots
        last: DecodedFrame | None = None
        for decoded in frames:
            cuts: list[int] = []
            if last is not None and decoded.stretch != last.stretch:
                cuts = shots.flush_cuts()
                shots = ShotDetector(self._config, self._info.fps)
                if decoded.geometry != last.geometry:
                    scaler = FrameScaler(decoded.geometry, self._config.max_short_side)
            small, clip = scaler.make_small(decoded.frame), scaler.make_clip_frame(decoded.frame)
            pending = PendingFrame(
                decoded.index,
                decoded.time_s,
                decoded.pts,
                clip,
                small,
                decoded.stretch,
                decoded.after_gap,
                decoded.interlaced,
                decoded.transfer,
            )
            last = decoded
            yield pending, decoded.packets, [*cuts, *shots.push_frame(decoded.index, small)]
        self._shots = shots

    def _queue_frame(self, pending: PendingFrame, packets: list[VideoPacket], cuts: list[int]) -> None:
        self._frames += 1
        self._log.add_packets(packets)
        if pending.stretch != self._stretch:
            # The shape changes or frames are missing, so a clip ends here.
            insort(self._cuts, pending.index)
            self._copyable = self._copyable and pending.after_gap
        self._stretch = pending.stretch
        if pending.interlaced and self._copyable:
            insort(self._cuts, pending.index)
            self._copyable = False  # the clip's frames are not those of the packets
        for cut in cuts:
            insort(self._cuts, cut)
        self._pending.append(pending)

    def _consume_frame(self, pending: PendingFrame) -> Iterator[Span]:
        """Add the next frame, whose shot is known, to the open piece."""
        cut_here = False
        while self._cuts and self._cuts[0] <= pending.index:
            # A cut reported after its frames were written takes effect at the first frame still open.
            self._cuts.pop(0)
            cut_here = True
        next_s = self._get_end_of(pending)
        if self._piece and (cut_here or self._is_full(self._piece, pending, next_s)):
            yield from self._close_piece()
        piece = self._piece = self._piece or self._start_piece(pending)
        # Where time stamps stall, a frame is shown no longer than a clip may be.
        longest_s = max(pending.time_s + self._frame_s, piece.start_s + self._config.max_length)
        next_cut = self._cuts[0] if self._cuts else inf
        same_shot = takewhile(lambda each: each.index < next_cut, self._pending)
        piece.add_frame(pending, same_shot, min(next_s, longest_s))
        if not isinstance(piece.writer, ClipCopier):
            self._log.forget_before(pending.pts)

    def _is_full(self, piece: _Piece, pending: PendingFrame, next_s: float) -> bool:
        """Return whether the clip must end before this frame, which is shown until `next_s`.

        Lengths are rounded to the nearest frame: 300 frames at 29.97 per second are 10 s. Where the rest of
        the shot would be too short for a clip, this clip ends earlier to leave more of it.
        """
        elapsed, tolerance = pending.time_s - piece.start_s, self._frame_s / 2
        if next_s - piece.start_s > self._config.max_length + tolerance + _EPSILON_S:
            return True
        end_s = self._get_shot_end(pending)
        if end_s is None or elapsed < (end_s - piece.start_s) / 2:
            return False
        excess = end_s - piece.start_s - self._config.max_length
        return tolerance < excess < self._config.min_length <= end_s - pending.time_s + _EPSILON_S

    def _get_end_of(self, pending: PendingFrame) -> float:
        """Return the time until which a frame is shown, s; `_pending` begins with the next frame."""
        following = self._pending[0] if self._pending else None
        if following is not None and not following.after_gap:
            return following.time_s
        return pending.time_s + self._frame_s if following else self._end_s or pending.time_s + self._frame_s

    def _get_shot_end(self, pending: PendingFrame) -> float | None:
        """Return the time at which the shot of a frame ends, s; None: not known yet."""
        if self._cuts:
            before = pending
            for each in self._pending:
                if each.index >= self._cuts[0]:
                    return before.time_s + self._frame_s if each.after_gap else each.time_s
                before = each
        return self._end_s

    def _start_piece(self, pending: PendingFrame) -> _Piece:
        file = self._folder / f"{pending.index:09d}.mp4"
        sampler = FrameSampler(pending.time_s, self._config.sample_fps, self._scaler)
        return _Piece(pending, self._choose_writer(pending, file), file, sampler)

    def _choose_writer(self, pending: PendingFrame, file: Path) -> ClipWriter | None:
        """Return the writer of the clip that starts here; None where there will be no clip."""
        end_s = self._get_shot_end(pending)
        too_short = end_s is not None and end_s - pending.time_s < self._config.min_length - _EPSILON_S
        if too_short or self._is_too_small(pending.frame) or pending.index in self._done:
            return None
        if self._can_copy_from(pending):
            return ClipCopier(file, self._log, self._source.stream)
        config = self._config
        return ClipEncoder(
            file, pending.frame.width, pending.frame.height, self._info.fps, config.crf, config.preset
        )

    def _can_copy_from(self, pending: PendingFrame) -> bool:
        """Return whether the packets from this frame on show the frames that the decoder returned."""
        packet = self._log.forget_before(pending.pts)
        shown = [pending.pts, *(each.pts for each in self._pending)]
        if not self._copyable or packet is None or self._log.header_changed or None in shown:
            return False
        header = self._source.stream.codec_context.extradata or b""
        return is_clean_keyframe(packet, header) and bool(
            self._log.select_packets([pts for pts in shown if pts is not None])
        )

    def _is_too_small(self, shape: VideoFrame | Span) -> bool:
        return min(shape.width, shape.height) < self._config.min_short_side

    def _close_piece(self) -> Iterator[Span]:
        piece, self._piece = self._piece, None
        if piece is None:
            return
        span = piece.make_span()
        length = span.end_s - span.start_s
        broken = {i: message for i, message in self._source.damage if span.start_frame <= i < span.end_frame}
        if length < self._config.min_length - _EPSILON_S:
            span.set_outcome("rejected", "shot too short", length, self._config.min_length)
        elif self._is_too_small(span):
            short_side = min(span.width, span.height)
            span.set_outcome("rejected", "frame too small", short_side, self._config.min_short_side)
        elif broken:
            span.set_outcome("failed", f"damaged frames: {next(iter(broken.values()))}", len(broken), 0)
        elif piece.writer is not None:
            span = self._finish_piece(piece, piece.writer)
        if span.start_frame in self._done:
            span.status = "done"
        if span.status != "open" and piece.writer is not None:
            piece.writer.remove_file()
        yield span

    def _finish_piece(self, piece: _Piece, writer: ClipWriter) -> Span:
        count = writer.close_file()
        span = piece.make_span(count)
        if not count:
            span = piece.make_span()
            span.set_outcome("failed", "its packets and its frames do not agree")
        elif span.end_s - span.start_s < self._config.min_length - _EPSILON_S:
            span.set_outcome("rejected", "shot too short", span.end_s - span.start_s, self._config.min_length)
        else:
            span.file, span.cut = piece.file, writer.mode
            span.samples = [each for each in piece.sampler.samples if each.index < span.end_frame]
        return span

    def _report_missing(self) -> Iterator[Span]:
        """Yield a failed span for frames that the container states and the file does not hold."""
        info, end_s = self._info, self._end_s or 0.0
        if info.declared_packets:
            missing, expected = info.declared_packets - self._source.packets, info.declared_packets
        else:
            missing, expected = (round(s / self._frame_s) for s in (info.declared_s - end_s, info.declared_s))
        if missing > (1 - _COMPLETE_SHARE) * expected > 0 or self._source.end_reason:
            missing = max(1, missing)
            span = Span(
                self._frames,
                self._frames + missing,
                end_s,
                end_s + missing * self._frame_s,
                self._scaler.width,
                self._scaler.height,
            )
            why = f" ({self._source.end_reason})" if self._source.end_reason else ""
            span.set_outcome(
                "failed", f"the file ends early{why}: frames that could be read", self._frames, expected
            )
            if span.start_frame in self._done:
                span.status = "done"
            yield span


def _compute_mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
