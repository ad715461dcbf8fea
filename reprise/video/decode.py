"""Decode a video's frames in display order: timed, deinterlaced, in standard dynamic range.

The first decoder is strict: it reports each fault of the bits. Many faults damage no picture (a malformed SEI
message, a reference to frames that were cut off, an access unit without a picture). If the strict decoder
refuses a packet, a tolerant decoder decodes the video again, and only the frames that it marks are damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from av.error import FFmpegError
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from reprise.video.clock import FrameClock, is_gap
from reprise.video.colour import SDR, SdrConverter, check_colours, get_transfer
from reprise.video.errors import format_ffmpeg_error
from reprise.video.geometry import DisplayGeometry, parse_pixel_aspect, read_orientation
from reprise.video.info import has_presentation_stamps
from reprise.video.interlace import deinterlace_frames
from reprise.video.nal_units import has_picture, keep_pictures
from reprise.video.open_video import (
    STRICT_OPTIONS,
    OpenVideo,
    VideoPacket,
    configure_decoder,
    open_container,
)
from reprise.video.streams import choose_stream


@dataclass(frozen=True)
class DecodedFrame:
    """A frame of a video."""

    index: int  # number among the decoded frames, from 0
    time_s: float  # since the first frame
    pts: int | None  # time stamp in the source
    frame: VideoFrame  # deinterlaced, in standard dynamic range
    packets: list[VideoPacket]  # complete packets that were read since the previous frame
    geometry: DisplayGeometry
    stretch: int  # frames of one stretch have one shape and format, and no gap between them
    after_gap: bool = False  # frames before it are missing
    interlaced: bool = False  # whether the source frame was interlaced
    transfer: str = SDR  # transfer curve of the source: sdr, hlg, pq


class _StrictDecoderError(Exception):
    """A strict decoder refused a packet."""


def decode_frames(source: OpenVideo) -> Iterator[DecodedFrame]:
    """Yield frames in display order.

    A broken packet damages the frames up to the next keyframe, because they refer to it. Each damaged frame
    that is still yielded is recorded in `source.damage`. If reading stops early, `source.end_reason` holds
    the reason.

    Raises:
        BadVideoError: colours that cannot be converted.
    """
    converter = SdrConverter()
    for decoded in deinterlace_frames(_decode_all(source)):
        check_colours(decoded.frame, source.stream.codec_context.codec_tag)
        transfer = get_transfer(decoded.frame)
        if transfer == SDR:
            yield decoded
        else:
            yield replace(decoded, frame=converter.convert_frame(decoded.frame), transfer=transfer)


def _decode_all(source: OpenVideo) -> Iterator[DecodedFrame]:
    frames, packets = 0, 0
    try:
        for decoded in _PacketDecoder(source, source.stream, strict=True).decode(
            chain(source.head, source.container.demux(source.stream))
        ):
            frames, packets = decoded.index + 1, source.packets
            yield decoded
        return
    except _StrictDecoderError:
        source.packets, source.end_reason = 0, None
    with open_container(source.media) as container:
        stream = choose_stream(container)
        # The HEVC decoder marks no damage, so it stays strict and receives only pictures. With several
        # threads, marks may be set too late.
        configure_decoder(stream, STRICT_OPTIONS if source.info.codec == "hevc" else {}, threads=1)
        decoder = _PacketDecoder(source, stream, strict=False, first_frame=frames, first_packet=packets)
        yield from decoder.decode(container.demux(stream))


class _PacketDecoder:
    """One pass over the packets of a stream.

    Args:
        source: receives damage and counts.
        stream: its decoder is already configured.
        strict: raise if the decoder refuses a packet.
        first_frame: earlier frames are decoded but not yielded.
        first_packet: earlier packets were yielded with frames of an earlier pass.
    """

    def __init__(
        self,
        source: OpenVideo,
        stream: VideoStream,
        *,
        strict: bool,
        first_frame: int = 0,
        first_packet: int = 0,
    ) -> None:
        self._source, self._stream, self._strict = source, stream, strict
        self._first_frame, self._first_packet = first_frame, first_packet
        self._codec = source.info.codec
        self._extradata = stream.codec_context.extradata
        self._step_s = float(1 / source.info.fps)
        self._clock = FrameClock(self._step_s, by_decoding=not has_presentation_stamps(source.container))
        self._index = self._stretch = 0
        self._read: list[VideoPacket] = []
        self._damage: _Damage | None = None
        self._discarded: set[int] = set()  # time stamps of frames that are decoded and not shown
        self._last_s: float | None = None
        self._shape: tuple[DisplayGeometry, str, str] | None = None
        self._first_aspect = parse_pixel_aspect(stream.codec_context.sample_aspect_ratio)
        self._aspect = source.info.geometry.pixel_aspect
        # In a transport stream the flag only means that the counter jumped, for example where segments join.
        self._believes_flags = source.container.format.name != "mpegts"

    def decode(self, packets: Iterable[VideoPacket]) -> Iterator[DecodedFrame]:
        """Yield the frames that packets hold.

        Raises:
            _StrictDecoderError: the decoder is strict and refused a packet.
        """
        for packet in _end_at_error(self._source, packets):
            stamp = packet.pts if packet is not None else None
            if packet is not None and packet.is_corrupt and self._believes_flags:
                self._damage = _Damage("a packet is incomplete", stamp, stamp)
                continue
            if packet is not None and packet.size:
                self._source.packets += 1
                if self._source.packets > self._first_packet:
                    self._read.append(packet)
            prepared = self._prepare_packet(packet)
            if prepared is None and packet is not None:
                continue
            try:
                frames = self._stream.decode(prepared)
            except FFmpegError as error:
                if self._strict:
                    raise _StrictDecoderError from error
                if packet is None or has_picture(packet, self._codec, self._extradata):
                    # The decoder does not report which packet is broken, so damage begins with the next
                    # frame.
                    self._damage = _Damage(format_ffmpeg_error(error), None, stamp)
                    self._note_damage(self._damage.message)
                continue
            for frame in frames:
                if frame.pts in self._discarded:
                    continue
                decoded = self._describe_frame(frame)
                if decoded.index >= self._first_frame:
                    yield decoded

    def _prepare_packet(self, packet: VideoPacket | None) -> VideoPacket | None:
        if self._strict or packet is None or not packet.size:
            return packet
        reduced = keep_pictures(packet, self._codec, self._extradata)
        if reduced is not packet and packet.is_discard and packet.pts is not None:
            self._discarded.add(packet.pts)  # the new packet cannot say so
        return reduced

    def _describe_frame(self, frame: VideoFrame) -> DecodedFrame:
        if self._damage and frame.key_frame and _is_after(frame.pts, self._damage.last):
            self._damage = None
        if self._damage and _is_after(frame.pts, self._damage.first):
            self._note_damage(self._damage.message)
        elif frame.is_corrupt:
            message = "the decoder had to guess parts of a frame"
            self._note_damage(message)
            if not self._strict and frame.pict_type != PictureType.B:
                self._damage = _Damage(message, None, frame.pts)
        time_s = self._clock.read_time(frame)
        geometry = self._read_geometry(frame)
        shape = (geometry, frame.format.name, get_transfer(frame))
        gap = self._last_s is not None and is_gap(self._last_s, time_s, self._step_s)
        if gap or self._shape not in (None, shape):
            self._stretch += 1
        decoded = DecodedFrame(
            self._index, time_s, frame.pts, frame, self._read, geometry, self._stretch, after_gap=gap
        )
        self._last_s, self._shape = time_s, shape
        self._index, self._read = self._index + 1, []
        return decoded

    def _read_geometry(self, frame: VideoFrame) -> DisplayGeometry:
        if frame.key_frame:
            # The decoder's context is ahead of the frames; a new aspect applies from a keyframe on.
            aspect = parse_pixel_aspect(self._stream.codec_context.sample_aspect_ratio)
            if aspect != self._first_aspect:
                self._first_aspect = self._aspect = aspect
        return DisplayGeometry(frame.width, frame.height, self._aspect, read_orientation(frame))

    def _note_damage(self, message: str) -> None:
        if self._index >= self._first_frame:
            self._source.damage.append((self._index, message))


@dataclass(frozen=True)
class _Damage:
    """Damage of the frames after one time stamp. A keyframe after another time stamp ends it."""

    message: str
    first: int | None  # None: with the next frame
    last: int | None


def _is_after(pts: int | None, mark: int | None) -> bool:
    return pts is None or mark is None or pts > mark


def _end_at_error(source: OpenVideo, packets: Iterable[VideoPacket]) -> Iterator[VideoPacket | None]:
    """Yield the packets of a container. If it ends early, yield None last, which flushes the decoder."""
    try:
        yield from packets
    except FFmpegError as error:
        source.end_reason = format_ffmpeg_error(error)
        yield None
