"""A decoded frame in the shapes that slicing wants: upright, small or as large as the clip, or RGB."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from curation.imaging.codec import RGB
from reprise.video.source import VideoInfo

# PySceneDetect looks at frames whose longer side is about this many pixels; its thresholds were tuned for it.
SMALL_SIDE = 256
_PLANAR_FORMATS = ("yuv420p", "yuvj420p")  # what an encoder takes as it is
_ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


def get_small_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) px at which shots and motion are looked at."""
    scale = max(1.0, max(width, height) / SMALL_SIDE)
    return max(8, round(width / scale)), max(8, round(height / scale))


def get_clip_size(info: VideoInfo, max_short_side: int) -> tuple[int, int]:
    """(width, height) px of the clips: as shown, at most `max_short_side`, even as 4:2:0 wants."""
    scale = min(1.0, max_short_side / min(info.width, info.height))
    width, height = (max(2, int(side * scale + 0.5) // 2 * 2) for side in (info.width, info.height))
    return width, height


class FrameScaler:
    """Makes them for the frames of one video; keeps its scalers, which are dear to set up.

    `width`, `height`: px of the clips, as shown.
    """

    def __init__(self, info: VideoInfo, max_short_side: int) -> None:
        self.width, self.height = get_clip_size(info, max_short_side)
        self._rotation = info.rotation
        self._small = self._get_unrotated_size(*get_small_size(info.width, info.height))
        self._clip = self._get_unrotated_size(self.width, self.height)
        self._small_scaler, self._clip_scaler, self._rgb_scaler = (VideoReformatter() for _ in range(3))

    def make_small(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """(h, w, 3) BGR of about `SMALL_SIDE`."""
        width, height = self._small
        scaled = self._small_scaler.reformat(
            frame, width, height, "bgr24", interpolation="FAST_BILINEAR", threads=1
        )
        return _rotate_array(cast(NDArray[np.uint8], scaled.to_ndarray()), self._rotation)

    def make_clip_frame(self, frame: VideoFrame) -> VideoFrame:
        """4:2:0 of (width, height) px; the frame itself where it is that already."""
        width, height = self._clip
        if (frame.width, frame.height) != self._clip or frame.format.name not in _PLANAR_FORMATS:
            shrinks = frame.width > 1.5 * width
            frame = self._clip_scaler.reformat(
                frame, width, height, "yuv420p", interpolation="AREA" if shrinks else "BICUBIC", threads=1
            )
        return _rotate_planes(frame, self._rotation) if self._rotation else frame

    def make_rgb(self, clip_frame: VideoFrame) -> RGB:
        """(height, width, 3) RGB of what `clip` returned."""
        return cast(RGB, self._rgb_scaler.reformat(clip_frame, format="rgb24", threads=1).to_ndarray())

    def _get_unrotated_size(self, width: int, height: int) -> tuple[int, int]:
        return (height, width) if self._rotation in (90, 270) else (width, height)


def _rotate_array(array: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    return cast(NDArray[np.uint8], cv2.rotate(array, _ROTATIONS[rotation])) if rotation else array


def _rotate_planes(frame: VideoFrame, rotation: int) -> VideoFrame:
    """Each plane turned by itself: no pixel changes its value."""
    width, height = frame.width, frame.height
    flat = cast(NDArray[np.uint8], frame.to_ndarray()).ravel()
    luma, chroma = width * height, width * height // 4
    planes = [
        _rotate_array(flat[start : start + size].reshape(rows, -1), rotation)
        for start, size, rows in (
            (0, luma, height),
            (luma, chroma, height // 2),
            (luma + chroma, chroma, height // 2),
        )
    ]
    stacked = np.concatenate([plane.ravel() for plane in planes]).reshape(-1, planes[0].shape[1])
    turned = VideoFrame.from_ndarray(stacked, format=frame.format.name)
    turned.color_range, turned.colorspace = frame.color_range, frame.colorspace
    turned.color_primaries, turned.color_trc = frame.color_primaries, frame.color_trc
    return turned
