"""Write the frames [start, end) of a video as one mp4: packets copied where that is exact, else encoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from reprise.video.info import VideoInfo
from reprise.video.nal_units import H264_IDR, split_units
from reprise.video.open_video import VideoPacket

KEYFRAME_SECONDS = 0.5  # of encoded clips: a training loader seeks to random frames
_TIME_BASE = Fraction(1, 90_000)  # exact for 24, 25, 29.97, 30 and 60 fps, and fine enough for variable rates
_MOVFLAGS = {"movflags": "+faststart"}


class PacketLog:
    """The packets that the open clip or a later one may need, in decoding order."""

    def __init__(self) -> None:
        self._packets: deque[VideoPacket] = deque()
        # Whether a freed packet brought parameter sets other than those of the stream's header.
        self.header_changed = False

    def add_packets(self, packets: Iterable[VideoPacket]) -> None:
        """Store packets, in decoding order."""
        self._packets.extend(packets)

    def forget_before(self, pts: int | None) -> VideoPacket | None:
        """Free the packets stored before the packet of the frame with time stamp `pts`.

        No later clip needs them: a copy begins with a keyframe, and frames shown after a keyframe are stored
        after it.

        Args:
            pts: of a frame, in the stream's time base; None frees all packets.

        Returns:
            The packet of that frame, or None where it is not in the log.
        """
        if pts is not None and all(packet.pts != pts for packet in self._packets):
            return None  # it was stored before the packet of an earlier frame, and was freed with it
        while self._packets and (pts is None or self._packets[0].pts != pts):
            self.header_changed |= self._packets.popleft().has_sidedata("new_extradata")
        return self._packets[0] if self._packets else None

    def select_packets(self, shown: Sequence[int]) -> list[VideoPacket]:
        """Select packets that show exactly the frames with these time stamps, or the first of them.

        A B-frame is stored after the later frame that it refers to, so not every number of frames can be cut
        off.

        Args:
            shown: ascending time stamps; the first one is that of the first packet.

        Returns:
            Packets in decoding order; empty where the log does not agree with `shown`.
        """
        packets = list(self._packets)
        stamps = [_get_pts(packet) for packet in packets]
        count = count_clean_prefix(stamps, shown[-1])
        agrees = sorted(stamps[:count]) == list(shown[:count])
        return packets[:count] if agrees and all(map(_is_plain, packets[:count])) else []


def count_clean_prefix(stamps: Sequence[int], last: int) -> int:
    """Count the packets that show all frames up to some time, and no later frame.

    Args:
        stamps: time stamps of packets in decoding order.
        last: the latest time stamp that may be shown.
    """
    count, latest = 0, last
    for position, (stamp, in_order) in enumerate(zip(stamps, sorted(stamps), strict=True)):
        latest = stamp if position == 0 else max(latest, stamp)
        if latest > last:
            break
        if latest == in_order:
            count = position + 1
    return count


def compute_decoding_stamps(stamps: Sequence[int]) -> list[int]:
    """Compute decoding time stamps for packets that are shown at `stamps`, in decoding order.

    The steps are those of the sorted stamps, and no packet is decoded after it is shown. The source's own
    decoding stamps are not used, because Matroska has none.
    """
    in_order = sorted(stamps)
    delay = max((early - stamp for early, stamp in zip(in_order, stamps, strict=True)), default=0)
    return [early - delay for early in in_order]


def _get_pts(packet: VideoPacket) -> int:
    return packet.pts if packet.pts is not None else 0


def _is_plain(packet: VideoPacket) -> bool:
    """Timed, shown, and decoded with the parameter sets of the header."""
    known = packet.pts is not None and not packet.is_discard
    return known and not packet.has_sidedata("new_extradata")


def can_copy(info: VideoInfo, stream: VideoStream, width: int, height: int) -> bool:
    """Return whether packets of this stream can go into a clip unchanged.

    They can where every browser and loader plays them: H.264, 8 bit, 4:2:0, upright, of the clip's size.
    """
    context = stream.codec_context
    return (
        info.codec == "h264"
        and info.pixel_format in ("yuv420p", "yuvj420p")
        and info.geometry.is_plain
        and (width, height) == (context.width, context.height)
        and (context.extradata or b"")[:1] == b"\x01"  # avcC: parameter sets in the header, as mp4 needs them
    )


def is_clean_keyframe(packet: VideoPacket, extradata: bytes) -> bool:
    """Return whether neither an H.264 packet nor any packet after it needs a packet before it.

    The keyframe flag of a container is not enough: it also marks open groups of pictures.

    Args:
        packet: of a stream with an avcC header.
        extradata: that header.
    """
    kinds = (kind for kind, _ in split_units(packet, "h264", extradata))
    return next((kind for kind in kinds if 1 <= kind <= H264_IDR), None) == H264_IDR


class ClipWriter(Protocol):
    """A clip that is being written. `mode` is stored in its row."""

    mode: str

    def add_frame(self, frame: VideoFrame, pts: int | None, time_s: float, duration_s: float) -> None:
        """Add the next frame.

        Args:
            frame: 4:2:0, of the clip's size.
            pts: its time stamp in the source.
            time_s: its time in the video.
            duration_s: how long it is shown.
        """

    def close_file(self) -> int:
        """Close the file and return how many frames it holds, counted from the first."""

    def remove_file(self) -> None:
        """Remove the file."""


class ClipCopier:
    """Copies the source's packets. The clip may end up to one group of B-frames before the cut."""

    mode = "copy"

    def __init__(self, path: Path, log: PacketLog, template: VideoStream) -> None:
        self._path, self._log, self._template = path, log, template
        self._shown: list[int] = []

    def add_frame(self, frame: VideoFrame, pts: int | None, time_s: float, duration_s: float) -> None:
        """Note the time stamp of the next frame."""
        if pts is not None:
            self._shown.append(pts)

    def close_file(self) -> int:
        """Write the packets and return how many frames they show; 0 where packets and frames disagree."""
        packets = self._log.select_packets(self._shown)
        if not packets:
            return 0
        stamps = [_get_pts(packet) for packet in packets]
        with av.open(str(self._path), "w", format="mp4", options=_MOVFLAGS) as output:
            stream = output.add_stream_from_template(self._template)
            for packet, dts in zip(packets, compute_decoding_stamps(stamps), strict=True):
                # A copy of the bytes: the next clip may need the packet with its own clock.
                moved = Packet(bytes(packet))
                moved.pts, moved.dts = _get_pts(packet) - stamps[0], dts - stamps[0]
                moved.duration, moved.time_base = packet.duration, packet.time_base
                moved.is_keyframe = packet.is_keyframe
                moved.stream = stream
                output.mux(moved)
        return len(packets)

    def remove_file(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


class ClipEncoder:
    """H.264, 4:2:0, 8 bit, a keyframe every half second, no B-frames; times and colours as in the source."""

    mode = "encode"

    def __init__(self, path: Path, width: int, height: int, fps: Fraction, crf: int, preset: str) -> None:
        self._path = path
        self._output = av.open(str(path), "w", format="mp4", options=_MOVFLAGS)
        self._stream = self._output.add_stream("libx264", rate=fps.limit_denominator(1001 * 60))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        self._stream.time_base = context.time_base = _TIME_BASE
        # One thread: x264's output depends on their number, and the engine gives each worker its share.
        context.thread_count = 1
        context.gop_size = max(1, round(fps * Fraction(KEYFRAME_SECONDS)))
        self._stream.options = {"preset": preset, "crf": str(crf), "bf": "0"}
        self._start_s: float | None = None
        self._last, self._last_duration = -1, 0
        self._count = 0

    def add_frame(self, frame: VideoFrame, pts: int | None, time_s: float, duration_s: float) -> None:
        """Encode the next frame."""
        if self._start_s is None:
            self._start_s = time_s
            context = self._stream.codec_context
            context.color_range, context.colorspace = frame.color_range, frame.colorspace
            context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        frame.time_base = _TIME_BASE
        frame.pts = self._last = max(_to_ticks(time_s - self._start_s), self._last + 1)
        self._last_duration = max(1, _to_ticks(duration_s))
        frame.pict_type = PictureType.NONE  # else the source's keyframes would become ours
        self._mux_frame(frame)
        self._count += 1

    def close_file(self) -> int:
        """Close the file and return how many frames it holds."""
        self._mux_frame(None)
        self._output.close()
        return self._count

    def remove_file(self) -> None:
        """Remove the file."""
        self._output.close()
        self._path.unlink(missing_ok=True)

    def _mux_frame(self, frame: VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            if packet.pts == self._last:  # the next frame's stamp ends the others
                packet.duration = self._last_duration
            self._output.mux(packet)


def _to_ticks(seconds: float) -> int:
    return round(seconds / float(_TIME_BASE))
