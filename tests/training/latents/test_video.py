"""Decoding gives the right frames, upright and of the bucket's size; an unusable video has a reason."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from training.latents.buckets import SizeBuckets, SizeGrid
from training.latents.config import BucketsConfig
from training.latents.video import DroppedItemError, read_clip
from training.models.family import ClipLengths

GRID = SizeGrid(16, 4)
LENGTHS = ClipLengths(16.0, (17,))


def video(frames: int, *, fps: int = 24, size: tuple[int, int] = (96, 64), rotate: int = 0) -> bytes:
    """Frame n is grey 3n + 20, but for a white top left quarter; size is (width, height)."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for n in range(frames):
            picture = np.full((size[1], size[0], 3), 3 * n + 20, np.uint8)
            picture[: size[1] // 2, : size[0] // 2] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return memory.getvalue()


def buckets(**config: object) -> SizeBuckets:
    given = {"area": 64 * 96, "frames": (17, 9, 5), "fps": 8.0, **config}
    return SizeBuckets(BucketsConfig(**given), GRID, LENGTHS)


def greys(frames: np.ndarray) -> list[int]:
    """Numbers of the frames, as painted."""
    return [round((float(frame[-8:, -8:].mean()) - 20) / 3) for frame in frames]


def test_frames_are_taken_at_a_steady_rate_from_the_middle() -> None:
    data = video(72)  # 3 s: 24 ticks of 1/8 s; the middle 17 start at tick 3, each tick 3 frames apart
    clip = read_clip(data, buckets())
    assert clip.frames.shape == (17, 64, 96, 3) and clip.fps == 8 and clip.first_s == 3 / 8
    assert greys(clip.frames) == [9 + 3 * n for n in range(17)]
    start = read_clip(data, buckets(window="start"))
    assert greys(start.frames) == [3 * n for n in range(17)] and start.first_s == 0


def test_a_file_and_its_bytes_are_the_same(tmp_path: Path) -> None:
    data = video(30)
    (tmp_path / "a.mp4").write_bytes(data)
    assert (read_clip(tmp_path / "a.mp4", buckets()).frames == read_clip(data, buckets()).frames).all()


def test_short_clips_go_to_the_next_smaller_length_and_then_are_dropped() -> None:
    assert len(read_clip(video(40), buckets()).frames) == 9  # 14 ticks
    assert greys(read_clip(video(40), buckets(window="start")).frames) == [3 * n for n in range(9)]
    with pytest.raises(DroppedItemError, match="4 frames at 8 per second, at least 5") as caught:
        read_clip(video(10), buckets())
    assert caught.value.reason == "too short"


def test_frames_are_shrunk_and_cropped_in_the_middle() -> None:
    clip = read_clip(video(24, size=(240, 128)), buckets(sizes=("64x96",), frames=(5,)))
    assert clip.frames.shape[1:3] == (64, 96)
    # 240x128 is resized to 120x64, of which 12 columns go on each side: white was 60, 48 are left.
    white = clip.frames[2, 8].mean(axis=-1) > 200
    assert 46 <= int(white.sum()) <= 50 and white[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"nonsense", "unreadable"),
        (b"", "unreadable"),
        (video(24, size=(32, 32)), "too small"),
        (video(24, size=(640, 64)), "aspect ratio"),
        (video(24, fps=6), "frame rate"),
        (video(48)[:1000], "unreadable"),
    ],
)
def test_an_unusable_video_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DroppedItemError) as caught:
        read_clip(data, buckets(frames=(5,)))
    assert caught.value.reason == reason
