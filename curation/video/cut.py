"""Write the frames [start, end) of a video as one mp4: packets copied where that is exact, else encoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from curation.video.source import VideoInfo

KEYFRAME_SECONDS = 0.5  # of encoded clips: a training loader seeks to random frames
_CLOCK = Fraction(1, 90_000)  # holds 24, 25, 29.97, 30, 60 fps and variable rates alike
_MOVFLAGS = {"movflags": "+faststart"}


class PacketLog:
    """The packets of the stretch that is still being worked on, in decoding order."""

    def __init__(self) -> None:
        self._packets: deque[Packet] = deque()
        self._unstamped = False

    def append(self, packet: Packet) -> None:
        if not packet.size:
            return
        if packet.pts is None or packet.dts is None:
            self._unstamped = True
        else:
            self._packets.append(packet)

    def forget_before(self, pts: int | None) -> None:
        """Free packets that a clip from `pts` on does not need; None frees all."""
        while self._packets and (pts is None or _pts(self._packets[0]) < pts):
            self._packets.popleft()

    def from_keyframe(self, pts: int | None) -> list[Packet] | None:
        """Packets from the keyframe shown at exactly `pts` on; None where a copy would not be exact.

        It would not be where no keyframe is shown there, where a packet has no time stamp, or where a later
        packet is shown before the keyframe (an open group of pictures needs frames that are cut off).
        """
        found: list[Packet] | None = None
        for packet in self._packets:
            if found is None and packet.is_keyframe and packet.pts == pts:
                found = []
            if found is not None:
                found.append(packet)
        if not found or pts is None or self._unstamped or any(_pts(packet) < pts for packet in found):
            return None
        return found


def may_copy(info: VideoInfo, stream: VideoStream, width: int, height: int) -> bool:
    """Whether packets of this stream can go into a clip as they are: what every browser and loader plays."""
    extradata = stream.codec_context.extradata
    return (
        info.codec == "h264"
        and info.pixel_format in ("yuv420p", "yuvj420p")
        and info.square_pixels
        and info.rotation == 0
        and (width, height) == (stream.codec_context.width, stream.codec_context.height)
        and width % 2 == 0
        and height % 2 == 0
        and bool(extradata)
        and extradata is not None
        and extradata[0] == 1  # avcC: parameter sets in the header, as mp4 wants them
    )


def clean_prefix(packets: Sequence[Packet], end_pts: int | None) -> int:
    """How many packets in decoding order show exactly the frames before some time <= `end_pts`.

    B-frames are stored after the later frame that they refer to, so not every prefix is a stretch of video.
    """
    count = 0
    latest = -(1 << 62)
    earliest_after = [1 << 62] * (len(packets) + 1)
    for position in range(len(packets) - 1, -1, -1):
        earliest_after[position] = min(earliest_after[position + 1], _pts(packets[position]))
    for position, packet in enumerate(packets):
        latest = max(latest, _pts(packet))
        if end_pts is not None and latest >= end_pts:
            break
        if latest < earliest_after[position + 1]:
            count = position + 1
    return count


def _pts(packet: Packet) -> int:
    return packet.pts if packet.pts is not None else 0


class Cut(Protocol):
    """A clip being written."""

    how: str

    def add(self, frame: VideoFrame) -> None: ...

    def finish(self, end_pts: int | None) -> int:
        """Close the file; the frames are all that were added, or those before `end_pts`. Returns their number."""
        ...

    def abandon(self) -> None: ...


class CopiedCut:
    """Bit-exact: the source's own packets. The end may fall up to one group of B-frames short of the cut."""

    how = "copy"

    def __init__(self, path: Path, log: PacketLog, start_pts: int, template: VideoStream) -> None:
        self._path, self._log, self._start, self._template = path, log, start_pts, template

    def add(self, frame: VideoFrame) -> None:
        pass

    def finish(self, end_pts: int | None) -> int:
        packets = self._log.from_keyframe(self._start) or []
        count = clean_prefix(packets, end_pts)
        with av.open(str(self._path), "w", format="mp4", options=_MOVFLAGS) as output:
            stream = output.add_stream_from_template(self._template)
            for packet in packets[:count]:
                # A copy of the bytes: the log may still need the packet with its own clock.
                moved = Packet(bytes(packet))
                moved.pts, moved.dts = _pts(packet) - self._start, (packet.dts or 0) - self._start
                moved.duration, moved.time_base = packet.duration, packet.time_base
                moved.is_keyframe = packet.is_keyframe
                moved.stream = stream
                output.mux(moved)
        return count

    def abandon(self) -> None:
        self._path.unlink(missing_ok=True)


class EncodedCut:
    """H.264, 4:2:0, 8 bit, a keyframe every half second, no B-frames; times of the source kept."""

    how = "encode"

    def __init__(self, path: Path, width: int, height: int, fps: Fraction, crf: int, preset: str) -> None:
        self._path = path
        self._output = av.open(str(path), "w", format="mp4", options=_MOVFLAGS)
        rate = fps.limit_denominator(1001 * 60)
        self._stream = self._output.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.time_base = _CLOCK
        self._stream.codec_context.time_base = _CLOCK
        # One thread: x264's output depends on their number, and the engine gives each worker its share.
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.gop_size = max(1, round(fps * Fraction(KEYFRAME_SECONDS)))
        self._stream.options = {"preset": preset, "crf": str(crf), "bf": "0"}
        self._fps = fps
        self._start: Fraction | None = None
        self._last = -1
        self._count = 0

    def add(self, frame: VideoFrame) -> None:
        time = (
            Fraction(frame.pts) * Fraction(frame.time_base)
            if frame.pts is not None and frame.time_base
            else Fraction(self._count) / self._fps
        )
        if self._start is None:
            self._start = time
        frame.pts = max(round((time - self._start) / _CLOCK), self._last + 1)
        self._last = frame.pts
        frame.time_base = _CLOCK
        frame.pict_type = av.video.frame.PictureType.NONE
        self._output.mux(self._stream.encode(frame))
        self._count += 1

    def finish(self, end_pts: int | None) -> int:
        self._output.mux(self._stream.encode(None))
        self._output.close()
        return self._count

    def abandon(self) -> None:
        self._output.close()
        self._path.unlink(missing_ok=True)
