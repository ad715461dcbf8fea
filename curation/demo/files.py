"""Write a rendered video into a folder: mp4, caption beside it, exact truth in truth/.

The demo and the playground both use it; `curation.demo.render` describes the truth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """The properties of a video besides its pictures. `sidecar`: "txt" or "json". `grey`: without colour.

    `crf` is x264's quality. `threads` is its number of threads, fixed so that every machine writes the same
    bits.
    """

    name: str
    caption: str
    width: int
    height: int
    fps: int
    sidecar: str = "txt"
    crf: int = 22
    threads: int = 2
    grey: bool = False


def write_truth_video(
    film: VideoSpec, folder: Path, frames: Callable[[dict[str, Any]], Iterator[U8]]
) -> Path:
    """Write one video with its caption and truth into `folder`, which is made if needed.

    `frames` is called with the truth. It yields pictures, (height, width, 3) RGB, and fills `shots`,
    `subjects` and `num_frames` of the truth.

    Returns:
        The path of the video.
    """
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    video = folder / f"{film.name}.mp4"
    truth: dict[str, Any] = {
        "video": video.name,
        "caption": film.caption,
        "fps": film.fps,
        "width": film.width,
        "height": film.height,
        "num_frames": 0,
        "shots": [],
        "subjects": [],
    }
    _encode_video(film, video, frames(truth))
    caption = json.dumps({"caption": film.caption}) if film.sidecar == "json" else film.caption
    video.with_suffix(f".{film.sidecar}").write_text(caption + "\n", encoding="utf-8")
    text = json.dumps(truth, separators=(",", ":")) + "\n"
    (folder / "truth" / f"{film.name}.json").write_text(text, encoding="utf-8")
    return video


def _encode_video(film: VideoSpec, path: Path, frames: Iterator[U8]) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        # For equal bits in every run x264's macroblock tree is off: at some widths (854 is one) its vector
        # code reads uninitialised memory.
        options = {
            "preset": "veryfast",
            "crf": str(film.crf),
            "threads": str(film.threads),
            "mbtree": "0",
            "g": str(film.fps),
        }
        stream = cast(Any, container.add_stream("libx264", rate=film.fps, options=options))
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        stream.time_base = Fraction(1, film.fps)
        for index, rgb in enumerate(frames):
            planes = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
            if film.grey:
                planes[film.height :] = 128
            frame = av.VideoFrame.from_ndarray(cast(U8, planes), format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, film.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
