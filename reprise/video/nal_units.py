"""Split packets of H.264 and HEVC into their NAL units, and find those that hold pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

from av.packet import Packet
from av.video.stream import VideoStream

_H264_PICTURES = range(1, 6)  # nal_unit_type, ITU-T H.264 table 7-1
H264_IDR = 5
_HEVC_PICTURES = range(32)  # ITU-T H.265 table 7-1
_HEVC_PARAMETERS = range(32, 35)  # VPS, SPS, PPS
_START_CODE = b"\x00\x00\x00\x01"


def has_picture(packet: Packet[VideoStream], codec: str, extradata: bytes | None) -> bool:
    """Return whether a packet holds a part of a picture. Packets of other codecs count as pictures."""
    kinds = [kind for kind, _ in split_units(packet, codec, extradata)]
    pictures = {"h264": _H264_PICTURES, "hevc": _HEVC_PICTURES}.get(codec)
    return pictures is None or any(kind in pictures for kind in kinds)


def keep_pictures(
    packet: Packet[VideoStream], codec: str, extradata: bytes | None
) -> Packet[VideoStream] | None:
    """Return an HEVC packet without the units that are not needed to decode; None if no unit is left.

    Packets of other codecs are returned unchanged.
    """
    if codec != "hevc":
        return packet
    length = _get_length_bytes(codec, extradata)
    kept = [
        (len(unit).to_bytes(length, "big") if length else _START_CODE) + unit
        for kind, unit in split_units(packet, codec, extradata)
        if kind in _HEVC_PICTURES or kind in _HEVC_PARAMETERS
    ]
    if not kept:
        return None
    reduced = cast("Packet[VideoStream]", Packet(b"".join(kept)))
    reduced.pts, reduced.dts, reduced.duration = packet.pts, packet.dts, packet.duration
    reduced.time_base, reduced.is_keyframe = packet.time_base, packet.is_keyframe
    for data in packet.iter_sidedata():
        reduced.set_sidedata(data)  # such as parameter sets that hold from here on
    return reduced


def split_units(
    packet: Packet[VideoStream], codec: str, extradata: bytes | None
) -> Iterator[tuple[int, bytes]]:
    """Yield (nal_unit_type, bytes) of each unit of an H.264 or HEVC packet; nothing for other codecs."""
    if codec not in ("h264", "hevc"):
        return
    data, length = bytes(packet), _get_length_bytes(codec, extradata)
    for unit in _split_by_length(data, length) if length else re.split(b"\x00*\x00\x00\x01", data):
        if unit:
            yield (unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63), unit


def _get_length_bytes(codec: str, extradata: bytes | None) -> int:
    """Return the bytes of the length field before a unit (ISO 14496-15, lengthSizeMinusOne).

    0: start codes separate the units.
    """
    at = 4 if codec == "h264" else 21
    if not extradata or extradata[0] != 1 or len(extradata) <= at:
        return 0
    return (extradata[at] & 3) + 1


def _split_by_length(data: bytes, length: int) -> Iterator[bytes]:
    at = 0
    while at + length < len(data):
        size = int.from_bytes(data[at : at + length], "big")
        yield data[at + length : at + length + size]
        at += length + size
