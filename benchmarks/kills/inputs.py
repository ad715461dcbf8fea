"""Small inputs: captioned videos of a ball that crosses the frame, all different."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

_SIZE = (160, 120)  # width, height, px
_FPS = 25
_SECONDS = 3.2
# The nouns differ, or no video would be unrelated to another, and there would be no cross-pairs.
_CAPTIONS = ("A red ball rolls over the ground.", "The cup, striped and bright, slides quickly past.")


def write_videos(folder: Path, count: int) -> Path:
    """Write `count` videos of 3.2 s with a caption beside each; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        _write_video(folder / f"ball-{number:02d}.mp4", number)
        (folder / f"ball-{number:02d}.txt").write_text(_CAPTIONS[number % 2])
    return folder


def _write_video(path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    width, height = _SIZE
    ground = draw.integers(60, 140, (height, width, 3)).astype(np.float32)
    colour = draw.permutation([220, 60, 40]).astype(np.float32)
    y, x = np.mgrid[:height, :width]
    frames = round(_SECONDS * _FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", _FPS, options={"preset": "ultrafast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            centre = 20 + (width - 40) * index / frames
            ball = (x - centre) ** 2 + (y - height / 2 - 10 * (seed % 3)) ** 2 < 18**2
            picture = np.where(ball[..., None], colour, ground).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
