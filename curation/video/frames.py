"""Convert a decoded frame to the forms that slicing uses: upright and small, of the clip's size, or RGB."""

from __future__ import annotations

from typing import cast

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from curation.imaging.codec import RGB
from reprise.video.geometry import DisplayGeometry, render_upright, render_upright_planes

# PySceneDetect reads frames whose longer side has about this many pixels; its thresholds were tuned for it.
SMALL_SIDE = 256


def get_small_size(width: int, height: int) -> tuple[int, int]:
    """Return (width, height), px, of the small frames from which shots and motion are measured."""
    scale = max(1.0, max(width, height) / SMALL_SIDE)
    return max(8, round(width / scale)), max(8, round(height / scale))


def get_clip_size(geometry: DisplayGeometry, max_short_side: int) -> tuple[int, int]:
    """Return (width, height) of the clips, px: as displayed, and even, because 4:2:0 needs that.

    Args:
        geometry: of the source's frames.
        max_short_side: limit of the shorter side, px.
    """
    scale = min(1.0, max_short_side / min(geometry.width, geometry.height))
    width, height = (max(2, int(side * scale + 0.5) // 2 * 2) for side in (geometry.width, geometry.height))
    return width, height


class FrameScaler:
    """Converts frames of one geometry. It keeps its scalers, which are slow to set up.

    Attributes:
        width: displayed width of the clips, px.
        height: displayed height of the clips, px.
    """

    def __init__(self, geometry: DisplayGeometry, max_short_side: int) -> None:
        self.width, self.height = get_clip_size(geometry, max_short_side)
        self._geometry = geometry
        self._small_size = get_small_size(geometry.width, geometry.height)
        self._small_scaler, self._clip_scaler, self._rgb_scaler = (VideoReformatter() for _ in range(3))

    def make_small(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return a small upright frame, (h, w, 3) BGR uint8, whose longer side is about `SMALL_SIDE` px."""
        return render_upright(
            frame,
            self._geometry,
            *self._small_size,
            self._small_scaler,
            pixel_format="bgr24",
            interpolation="FAST_BILINEAR",
        )

    def make_clip_frame(self, frame: VideoFrame) -> VideoFrame:
        """Return the frame in 4:2:0, `width` x `height` px; unchanged if it has this form already."""
        return render_upright_planes(frame, self._geometry, self.width, self.height, self._clip_scaler)

    def make_rgb(self, clip_frame: VideoFrame) -> RGB:
        """Return a frame of `make_clip_frame` as RGB, (height, width, 3) uint8."""
        return cast(RGB, self._rgb_scaler.reformat(clip_frame, format="rgb24", threads=1).to_ndarray())
