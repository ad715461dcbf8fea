"""Metadata of a video, as its container states it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from reprise.video.frame_rate import choose_frame_rate
from reprise.video.geometry import DisplayGeometry, parse_pixel_aspect


@dataclass(frozen=True)
class VideoInfo:
    """Metadata of a video before its frames are decoded. Sizes in pixels."""

    codec: str
    pixel_format: str
    fps: Fraction  # of the frames; the container may state another one
    geometry: DisplayGeometry  # of the first frames; the orientation is known with the first frame
    declared_packets: int  # 0: the container does not state it
    declared_s: float  # length of the stream; 0: the container does not state it
    duration_s: float  # as the container states or estimates it; 0: it does not

    @property
    def width(self) -> int:
        """Displayed width, px."""
        return self.geometry.width

    @property
    def height(self) -> int:
        """Displayed height, px."""
        return self.geometry.height

    def with_geometry(self, geometry: DisplayGeometry) -> VideoInfo:
        """Return the same metadata with frames of another shape."""
        return replace(self, geometry=geometry)


def read_info(
    container: InputContainer, stream: VideoStream, packets: Sequence[Packet[VideoStream]]
) -> VideoInfo:
    """Read the metadata of a stream.

    Args:
        container: the container of the stream.
        stream: the stream that is decoded.
        packets: its first packets, whose time stamps give the frame rate.

    Raises:
        ValueError: the container states no frame size.
    """
    context = stream.codec_context
    if not context.width or not context.height:
        raise ValueError("no frame size")
    start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
    # An edit list may leave out samples that the header counts; the index lists those that remain.
    indexed = len(stream.index_entries)
    return VideoInfo(
        codec=context.codec.canonical_name,
        pixel_format=str(context.pix_fmt),
        fps=choose_frame_rate(
            (stream.average_rate, stream.guessed_rate, stream.base_rate),
            [stamp for packet in packets if (stamp := _read_stamp(container, packet)) is not None],
        ),
        geometry=DisplayGeometry(
            context.width, context.height, parse_pixel_aspect(stream.sample_aspect_ratio)
        ),
        declared_packets=min(stream.frames, indexed) if indexed else int(stream.frames or 0),
        declared_s=max(0.0, _parse_duration(stream.metadata.get("DURATION", "")) - start),
        duration_s=_get_duration(container, stream),
    )


def has_presentation_stamps(container: InputContainer) -> bool:
    """Return whether packets have presentation time stamps. AVI stores only the decoding order."""
    return container.format.name != "avi"


def _read_stamp(container: InputContainer, packet: Packet[VideoStream]) -> float | None:
    stamp = packet.pts if has_presentation_stamps(container) else packet.dts
    stamp = packet.dts if stamp is None else stamp
    return float(stamp * packet.time_base) if stamp is not None and packet.time_base else None


def _get_duration(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _parse_duration(text: str) -> float:
    """Parse Matroska's tag of a stream's length, such as 00:01:23.456000000, to seconds; 0: there is none."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text.strip())
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else 0.0
