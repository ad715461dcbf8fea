"""Writing frames as a video file that every player reads."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float = 16.0, crf: int = 16) -> None:
    """Write H.264 in mp4, beside `path` and then renamed, so that a file at `path` is complete.

    Args:
        path: of the file.
        frames: (H, W, 3) RGB, H and W even; at least one.
        fps: frames per second.
        crf: quality, 0 (lossless) to 51.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": str(crf)}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if stream is None:
            raise ValueError("a video needs at least one frame")
        container.mux(stream.encode())
    partial.rename(path)


def convert_to_uint8(frames: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Convert frames of any shape from 0..1 to 0..255."""
    return (frames * 255.0).round().clip(0, 255).astype(np.uint8)
