"""A folder of small real videos, most of them difficult and some of them broken, made on the spot.

The good ones show the same scene: a striped red ball rolls in front of a textured background. Each has bytes
of its own, or they would be duplicates, and a caption beside it, unless the point is that it has none.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints its settings otherwise

WIDTH, HEIGHT, FPS, FRAMES = 320, 240, 25, 80  # 3.2 s
CAPTION = "a red ball rolls in front of a colourful wall"

OK, REJECTED, FAILED = "ok", "rejected", "failed"


def make_fault_corpus(folder: Path) -> dict[str, str]:
    """Build the corpus in `folder`; file name -> what curation must make of it.

    ok: gives at least one clip. rejected: readable, but nothing to be used (too short, no caption, there
    twice). failed: cannot be read, or only with pixels that the decoder made up. A file whose end is missing
    is ok for what is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, str] = {}
    for number, (name, (outcome, build)) in enumerate(_FILES.items()):
        build(folder / name, number)
        expected[name] = outcome
        if name != "no_caption.mp4":
            (folder / name).with_suffix(".txt").write_text(CAPTION + "\n")
    return expected


@lru_cache(maxsize=1)
def _background() -> np.ndarray[Any, Any]:
    """A wall of soft blotches and fine grain, [HEIGHT, WIDTH, 3] uint8 RGB, without reds."""
    random = np.random.default_rng(7)
    coarse = cv2.resize(random.integers(40, 200, (12, 16, 3), np.uint8), (WIDTH, HEIGHT), interpolation=2)
    grain = random.integers(-18, 18, (HEIGHT, WIDTH, 1))
    wall = coarse.astype(np.int16) + grain
    wall[..., 0] //= 2
    return np.clip(wall, 0, 255).astype(np.uint8)


def scene(phase: int = 0, frames: int = FRAMES) -> Iterator[np.ndarray[Any, Any]]:
    """Frames of the scene, [HEIGHT, WIDTH, 3] uint8 RGB; `phase` moves the ball's path."""
    for i in range(frames):
        picture = _background().copy()
        turn = 2 * np.pi * (i + 7 * phase) / FRAMES
        x, y = int(160 + 95 * np.cos(turn)), int(120 + 45 * np.sin(2 * turn + phase))
        cv2.circle(picture, (x, y), 36, (215, 25, 30), -1, cv2.LINE_AA)
        for stripe in range(3):  # so that it is seen to roll
            angle = float(np.degrees(2 * turn)) + 120 * stripe
            cv2.ellipse(picture, (x, y), (24, 24), angle, 0, 50, (250, 170, 150), 6, cv2.LINE_AA)
        yield picture


def encode(
    path: Path,
    phase: int = 0,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    frames: int = FRAMES,
    fps: int = FPS,
    times: Callable[[int], int] | None = None,
    first: int = 0,
    gop: int = 25,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    sound: bool = False,
    second: bool = False,
    cover: bool = False,
) -> None:
    """Write the scene to a file.

    `times` gives a frame's time in ticks of 1/1000 s, instead of even steps; `first` is the time of the first
    frame in ticks of 1/fps; `second` adds another, smaller video stream; `cover` an attached picture.
    """
    with av.open(str(path), "w", options=container or {}) as out:
        video: Any = out.add_stream(codec, rate=fps, options=(options or {}))
        video.width, video.height, video.pix_fmt = *size, pixels
        video.codec_context.gop_size = gop
        video.codec_context.thread_count = 2
        base = Fraction(1, fps) if times is None else Fraction(1, 1000)
        video.codec_context.time_base = base
        streams = [video]
        if second or cover:
            other: Any = out.add_stream("mjpeg" if cover else codec, rate=fps)
            other.width, other.height, other.pix_fmt = 160, 120, "yuvj420p" if cover else pixels
            other.codec_context.time_base = base
            if cover:
                other.disposition = av.stream.Disposition.attached_pic
            streams.append(other)
        audio: Any = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i, picture in enumerate(scene(phase, frames)):
            for stream in streams[: 1 if cover and i else None]:
                shape = (stream.width, stream.height)
                scaled = picture if shape == (WIDTH, HEIGHT) else cv2.resize(picture, shape)
                frame = av.VideoFrame.from_ndarray(scaled, format="rgb24")
                frame.pts = first + i if times is None else times(i)
                frame.time_base = base
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
        if audio is not None:
            _tone(out, audio, frames / fps)


def _tone(out: Any, stream: Any, seconds: float) -> None:
    rate = 16000
    wave = (8000 * np.sin(2 * np.pi * 330 * np.arange(int(rate * seconds)) / rate)).astype(np.int16)
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


_X264 = {"preset": "ultrafast", "crf": "26"}


def _h264(**settings: Any) -> Callable[[Path, int], None]:
    return lambda path, phase: encode(path, phase, **{"options": _X264, **settings})


def _other(codec: str, options: dict[str, str], **settings: Any) -> Callable[[Path, int], None]:
    return lambda path, phase: encode(path, phase, codec=codec, options=options, **settings)


def _zero(path: Path, phase: int) -> None:
    path.write_bytes(b"")


def _text(path: Path, phase: int) -> None:
    path.write_text("This is a note and not a video.\n" * 40)


def _sound_alone(path: Path, phase: int) -> None:
    with av.open(str(path), "w") as out:
        _tone(out, out.add_stream("aac", rate=16000, layout="mono"), 3.0)


def _without_index(path: Path, phase: int) -> None:
    """The index of an MP4 is at its end: cut it off, as an interrupted recording does."""
    encode(path, phase, options=_X264)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])


def _half(path: Path, phase: int) -> None:
    """The index comes first and is whole, the second half of the pictures is missing: a broken download."""
    encode(path, phase, options=_X264, frames=2 * FRAMES, container={"movflags": "faststart"})
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) * 11 // 20])


def _damaged(path: Path, phase: int) -> None:
    """Random bytes over a stretch past the middle."""
    encode(path, phase, options=_X264, frames=2 * FRAMES)
    data = bytearray(path.read_bytes())
    start, length = len(data) * 6 // 10, 20_000
    data[start : start + length] = np.random.default_rng(phase).integers(0, 256, length, np.uint8).tobytes()
    path.write_bytes(bytes(data))


def _rotated(path: Path, phase: int) -> None:
    """Rotated by 90 degrees when shown, as telephones write it: by a matrix in the header."""
    encode(path, phase, options=_X264)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2: the matrix of a version 0 header
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, HEIGHT * one, 0, 1 << 30)
    path.write_bytes(bytes(data))


def _uneven(i: int) -> int:
    """Milliseconds: 30 frames a second for one second, then 12, then 25."""
    return i * 1000 // 30 if i < 30 else 1000 + (i - 30) * 1000 // 12 if i < 50 else 2667 + (i - 50) * 40


def _copy_of_plain(path: Path, phase: int) -> None:
    shutil.copyfile(path.with_name("plain.mp4"), path)


_FILES: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "plain.mp4": (OK, _h264()),
    "with space.mp4": (OK, _h264()),
    'it\'s "quoted" & 100% (1).mp4': (OK, _h264()),
    "红球 滚动.mp4": (OK, _h264()),
    "sound.mov": (OK, _h264(sound=True)),
    "matroska.mkv": (OK, _h264()),
    "one_keyframe.mp4": (OK, _h264(gop=9999, options={**_X264, "sc_threshold": "0"})),
    "uneven_times.mp4": (OK, _h264(times=_uneven)),
    "rotated.mp4": (OK, _rotated),
    "odd_size_444.mp4": (OK, _h264(size=(321, 241), pixels="yuv444p")),
    "odd_size.webm": (OK, _other("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, size=(321, 241))),
    "vp9.webm": (OK, _other("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"})),
    "av1.mp4": (OK, _other("libsvtav1", {"preset": "10", "crf": "40", "svtav1-params": "lp=2"})),
    "hevc_10bit.mp4": (
        OK,
        _other("libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}, pixels="yuv420p10le"),
    ),
    "loop.gif": (OK, _other("gif", {}, pixels="rgb8", fps=10, frames=32)),
    "mpeg4.avi": (OK, _other("mpeg4", {"qscale": "5"})),
    "mpeg2.mpg": (OK, _other("mpeg2video", {"qscale": "5"})),
    "interlaced.mkv": (OK, _h264(options={**_X264, "x264-params": "tff=1"})),
    "late_start.mkv": (OK, _h264(first=5 * FPS)),
    "late_start.ts": (OK, _h264(first=3600 * FPS)),
    "two_videos.mkv": (OK, _h264(second=True)),
    "cover_picture.mp4": (OK, _h264(cover=True)),
    "uhd.mp4": (OK, _h264(size=(3840, 2160), fps=8, frames=24, options={**_X264, "crf": "36"})),
    "half_missing.mp4": (OK, _half),
    "damaged_midway.mp4": (FAILED, _damaged),
    "one_frame.mp4": (REJECTED, _h264(frames=1)),
    "no_caption.mp4": (REJECTED, _h264()),
    "zz_copy_of_plain.mp4": (REJECTED, _copy_of_plain),
    "zero_bytes.mp4": (FAILED, _zero),
    "text.mp4": (FAILED, _text),
    "sound_alone.mp4": (FAILED, _sound_alone),
    "without_index.mp4": (FAILED, _without_index),
}
