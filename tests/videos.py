"""Make small videos, and read their frames back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints its settings otherwise

Picture = NDArray[np.uint8]  # (height, width, 3) RGB

X264 = {"preset": "ultrafast", "crf": "20"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
AV1 = {"preset": "10", "crf": "40", "svtav1-params": "lp=2"}


def shots(lengths: Sequence[int], width: int = 160, height: int = 120) -> Iterator[Picture]:
    """Shots of so many frames, each of another colour and texture, over which a bright square moves."""
    for shot, length in enumerate(lengths):
        random = np.random.default_rng(shot)
        base = np.array(
            [(40, 60, 200), (200, 170, 30), (30, 150, 60), (190, 40, 120), (90, 90, 90)][shot % 5]
        )
        grain = cv2.resize(random.integers(-30, 30, (6, 8), np.int16), (width, height))
        still = np.clip(base + grain[..., None], 0, 255).astype(np.uint8)
        for i in range(length):
            picture = still.copy()
            side = height // 4
            x, y = (shot * 7 + 2 * i) % (width - side), height // 3
            picture[y : y + side, x : x + side] = (240, 240, 220)
            yield picture


def fading(lengths: Sequence[int], dark: int, width: int = 160, height: int = 120) -> Iterator[Picture]:
    """Shots that each come out of black and go back to it, and stay black for `dark` frames in between."""
    pictures = list(shots(lengths, width, height))
    start = 0
    for length in lengths:
        for i in range(length):
            level = min(1.0, (i + 1) / 8, (length - i) / 8)
            yield (pictures[start + i] * level).astype(np.uint8)
        yield from (np.zeros((height, width, 3), np.uint8) for _ in range(dark))
        start += length


def write_video(
    path: Path,
    pictures: Iterable[Picture],
    *,
    fps: int | Fraction = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    gop: int = 250,
    times: Sequence[float] | None = None,
    aspect: Fraction | None = None,
    colours: dict[str, int] | None = None,
    faststart: bool = False,
) -> Path:
    """`times`: seconds of each frame, for a variable rate; `aspect`: of a pixel; `colours`: as in AVFrame;
    `faststart`: an MP4's index before its pictures, so that they can be read where the end is missing."""
    base = Fraction(1, 90_000) if times is not None else 1 / Fraction(fps)
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as out:
        stream: Any = None
        for i, picture in enumerate(pictures):
            if stream is None:
                stream = out.add_stream(codec, rate=fps, options=X264 if options is None else options)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixels
                stream.codec_context.gop_size = gop
                stream.codec_context.time_base = base
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
                for name, value in (colours or {}).items():
                    setattr(stream.codec_context, name, value)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i if times is None else round(times[i] / base)
            frame.time_base = base
            if colours:
                frame = frame.reformat(
                    format=pixels,
                    dst_colorspace=colours.get("colorspace"),
                    dst_color_range=colours.get("color_range"),
                )
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def read_planes(path: Path) -> list[NDArray[Any]]:
    """Every frame as the decoder gives it, planes and all: equal arrays are equal frames, bit by bit."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def read_pictures(path: Path) -> list[Picture]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def read_times(path: Path) -> list[float]:
    """Return the time of every frame in seconds, from the file."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def duration(path: Path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        return float(stream.duration * stream.time_base)


def psnr(left: NDArray[Any], right: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of two 8-bit pictures, dB."""
    error = float(np.mean((left.astype(np.float64) - right) ** 2))
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))
