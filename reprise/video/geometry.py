"""How stored frames are displayed: rotated, mirrored, stretched. Curation and training both use it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

_PLANAR_FORMATS = ("yuv420p", "yuvj420p")  # formats that an encoder accepts unchanged
_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


@dataclass(frozen=True)
class Orientation:
    """How a stored frame is displayed: mirrored left to right, then rotated counter-clockwise."""

    turns: int = 0  # quarter turns: 0, 1, 2, 3
    mirrored: bool = False


@dataclass(frozen=True)
class DisplayGeometry:
    """The shape of stored frames and how they are displayed. Sizes in pixels."""

    stored_width: int
    stored_height: int
    pixel_aspect: Fraction = Fraction(1)  # width of a stored pixel / its height
    orientation: Orientation = Orientation()

    @property
    def width(self) -> int:
        """Displayed width, in square pixels."""
        return self._shown[0]

    @property
    def height(self) -> int:
        """Displayed height, in square pixels."""
        return self._shown[1]

    @property
    def is_plain(self) -> bool:
        """Whether frames are displayed as they are stored."""
        return self.pixel_aspect == 1 and self.orientation == Orientation()

    @property
    def _shown(self) -> tuple[int, int]:
        stretched = max(2, round(self.stored_width * self.pixel_aspect))
        return self.swap_sides(stretched, self.stored_height)

    def swap_sides(self, width: int, height: int) -> tuple[int, int]:
        """Exchange width and height if the orientation is an odd number of quarter turns.

        It converts the size of a stored frame to that of the upright frame, and back.
        """
        return (height, width) if self.orientation.turns % 2 else (width, height)


def read_orientation(frame: VideoFrame) -> Orientation:
    """Return the orientation in a frame's display matrix, to the nearest quarter turn.

    The matrix maps stored to shown coordinates, x' = a x + c y and y' = b x + d y (ISO 14496-12, 8.3.2). A
    negative determinant mirrors.
    """
    data = cast(SideDataContainer, frame.side_data).get(Type.DISPLAYMATRIX)
    if data is None:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
    if a == b == 0 or c == d == 0:
        return Orientation()
    mirrored = a * d - b * c < 0
    angle = math.atan2(b, -a) if mirrored else math.atan2(-b, a)
    return Orientation(round(angle / (math.pi / 2)) % 4, mirrored)


def parse_pixel_aspect(aspect: Fraction | None) -> Fraction:
    """Return a pixel aspect ratio (width / height), or 1 if it is missing or implausible."""
    ratio = Fraction(aspect or 1)
    return ratio if Fraction(1, 8) <= ratio <= 8 else Fraction(1)


def choose_interpolation(from_width: int, to_width: int) -> str:
    """Return FFmpeg's name of a filter: averaging if a frame is reduced much, else bicubic.

    Args:
        from_width: of the frame, px.
        to_width: of the result, px.
    """
    return "AREA" if from_width > 1.5 * to_width else "BICUBIC"


def render_upright(
    frame: VideoFrame,
    geometry: DisplayGeometry,
    width: int,
    height: int,
    scaler: VideoReformatter,
    *,
    pixel_format: str = "rgb24",
    interpolation: str | None = None,
) -> NDArray[np.uint8]:
    """Return a frame as it is displayed, (height, width, 3) uint8 of square pixels.

    Args:
        frame: as decoded.
        geometry: of the frame.
        width: of the result, px.
        height: of the result, px.
        scaler: the caller keeps it, because it is slow to set up.
        pixel_format: rgb24 or bgr24.
        interpolation: FFmpeg's name of a filter; None: `choose_interpolation` chooses it.
    """
    stored_width, stored_height = geometry.swap_sides(width, height)
    scaled = scaler.reformat(
        frame,
        stored_width,
        stored_height,
        pixel_format,
        interpolation=interpolation or choose_interpolation(frame.width, stored_width),
        threads=1,
    )
    return orient_array(cast(NDArray[np.uint8], scaled.to_ndarray()), geometry.orientation)


def render_upright_planes(
    frame: VideoFrame, geometry: DisplayGeometry, width: int, height: int, scaler: VideoReformatter
) -> VideoFrame:
    """Return a frame as it is displayed, in 4:2:0, `width` x `height` px.

    A frame that has this form already is returned unchanged.
    """
    stored_width, stored_height = geometry.swap_sides(width, height)
    same_size = (frame.width, frame.height) == (stored_width, stored_height)
    if not same_size or frame.format.name not in _PLANAR_FORMATS:
        interpolation = choose_interpolation(frame.width, stored_width)
        frame = scaler.reformat(
            frame, stored_width, stored_height, "yuv420p", interpolation=interpolation, threads=1
        )
    return _orient_planes(frame, geometry.orientation)


def orient_array(array: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Mirror and rotate an array, (h, w) or (h, w, channels)."""
    if orientation.mirrored:
        array = cast(NDArray[np.uint8], cv2.flip(array, 1))
    if orientation.turns:
        array = cast(NDArray[np.uint8], cv2.rotate(array, _TURNS[orientation.turns]))
    return array


def _orient_planes(frame: VideoFrame, orientation: Orientation) -> VideoFrame:
    """Mirror and rotate each plane of a 4:2:0 frame separately, so that no pixel changes its value."""
    if orientation == Orientation():
        return frame
    width, height = frame.width, frame.height
    flat = cast(NDArray[np.uint8], frame.to_ndarray()).ravel()
    luma, chroma = width * height, width * height // 4
    planes = [
        orient_array(flat[start : start + size].reshape(rows, -1), orientation)
        for start, size, rows in (
            (0, luma, height),
            (luma, chroma, height // 2),
            (luma + chroma, chroma, height // 2),
        )
    ]
    stacked = np.concatenate([plane.ravel() for plane in planes]).reshape(-1, planes[0].shape[1])
    oriented = VideoFrame.from_ndarray(stacked, format=frame.format.name)
    oriented.color_range, oriented.colorspace = frame.color_range, frame.colorspace
    oriented.color_primaries, oriented.color_trc = frame.color_primaries, frame.color_trc
    return oriented
