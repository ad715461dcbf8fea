"""References as the frames of one video, for trainers that condition on a video."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from av.video.frame import VideoFrame

from curation.imaging.codec import RGB
from curation.video.cut import ClipEncoder

_WHITE = 255


def write_reference_video(
    pictures: Sequence[RGB], output: Path, size: tuple[int, int], fps: float, frames_per_latent: int
) -> int:
    """Write pictures one after another, each whole in the middle of a white frame.

    A video VAE encodes the first frame alone and then groups of `frames_per_latent` frames. So the first
    picture has one frame and every other one a group: each picture becomes one latent frame.

    Args:
        pictures: (h, w, 3), at least one.
        output: an MP4 to write.
        size: (width, height) of the frames, px.
        fps: frames per second.
        frames_per_latent: of the VAE; LTX has 8.

    Returns:
        The number of frames, `frames_per_latent * (n - 1) + 1`.
    """
    rate = Fraction(fps).limit_denominator(1001)
    encoder = ClipEncoder(output, *size, rate, crf=12, preset="veryfast")
    count = 0
    for number, picture in enumerate(pictures):
        frame = VideoFrame.from_ndarray(fit_on_white(picture, *size), format="rgb24").reformat(
            format="yuv420p"
        )
        for _ in range(frames_per_latent if number else 1):
            encoder.add_frame(frame, None, float(count / rate), float(1 / rate))
            count += 1
    return encoder.close_file()


def fit_on_white(picture: RGB, width: int, height: int) -> RGB:
    """Scale a picture without changing its shape, and centre it on white: (height, width, 3)."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(picture, (min(size[0], width), min(size[1], height)), interpolation=how)
    canvas = np.full((height, width, 3), _WHITE, np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas
