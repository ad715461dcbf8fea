"""Slicing divides a video into spans: each frame in one of them, each clip within the configured lengths."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.config import SliceConfig
from curation.imaging.codec import decode_image
from curation.video import sampling
from curation.video.motion import FrameMotion
from curation.video.slicer import Slicer, Span
from reprise.video.errors import BadVideoError
from tests.videos import psnr, read_pictures, shots, write_video

B_FRAMES = 3


def slice_path(path: Path, done: frozenset[int] = frozenset(), **config: Any) -> list[Span]:
    folder = Path(tempfile.mkdtemp(dir=path.parent))
    return list(Slicer(path, SliceConfig(**config), folder, done).slice_video())


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    detector=st.sampled_from(["content", "adaptive", "none"]),
    max_length=st.sampled_from([1.0, 1.7, 10.0]),
    b_frames=st.sampled_from([0, B_FRAMES]),
    cut=st.sampled_from(["auto", "encode"]),
)
def test_every_frame_is_in_one_span(
    lengths: list[int], detector: str, max_length: float, b_frames: int, cut: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = {"preset": "ultrafast", "bf": str(b_frames)}
        video = write_video(Path(folder, "v.mp4"), shots(lengths, 64, 48), options=options)
        spans = slice_path(video, detector=detector, min_length=0.5, max_length=max_length, cut=cut)
    assert spans[0].start_frame == 0
    assert sum(lengths) - spans[-1].end_frame in range(B_FRAMES + 1 if spans[-1].cut == "copy" else 1)
    for before, after in pairwise(spans):
        # Only a copied clip may lose frames before its cut: those of one group of B-frames.
        assert after.start_frame - before.end_frame in range(B_FRAMES + 1 if before.cut == "copy" else 1)
    for span in spans:
        assert span.end_frame > span.start_frame
        assert span.end_s - span.start_s == pytest.approx(span.num_frames / 25)
        if span.status == "open":
            # To the nearest frame: 300 frames at 29.97 per second are 10 s.
            assert 0.5 - 1e-6 <= span.end_s - span.start_s <= max_length + 0.5 / 25 + 1e-6
        else:
            assert (span.status, span.reason) == ("rejected", "shot too short")


@pytest.mark.parametrize("frames", [50, 51, 60, 74, 75, 99, 100, 101, 160])
def test_no_end_of_a_long_shot_is_lost_for_being_short(tmp_path: Path, frames: int) -> None:
    video = write_video(tmp_path / "v.mp4", shots([frames, 30], 64, 48))
    spans = slice_path(video, min_length=1, max_length=2, cut="encode")
    assert {span.status for span in spans} == {"open"}
    assert frames in [span.start_frame for span in spans]


def test_shots_that_are_too_short_have_this_reason(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([40, 20, 40]))
    (_, short, _) = slice_path(video, min_length=1, min_shot=0.2)
    assert (short.status, short.reason, short.file, short.samples) == ("rejected", "shot too short", None, [])
    assert (short.start_frame, short.end_frame) == (40, 60)
    assert (short.value, short.threshold) == (pytest.approx(0.8), 1)


def test_videos_that_are_too_small_are_not_encoded(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([40]))
    folder = tmp_path / "clips"
    folder.mkdir()
    (span,) = Slicer(video, SliceConfig(min_length=1, min_short_side=480), folder).slice_video()
    assert (span.status, span.reason, span.value, span.threshold) == ("rejected", "frame too small", 120, 480)
    assert list(folder.iterdir()) == []


def test_samples_are_the_frames_they_name(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([50, 70]))
    pictures = read_pictures(video)
    for span in slice_path(video, min_length=1, sample_fps=2):
        steps = [(sample.time_s - span.start_s) * 2 for sample in span.samples]
        assert steps == pytest.approx([i + 0.5 for i in range(len(steps))], abs=0.08)
        assert len(steps) == round((span.end_s - span.start_s) * 2)
        for sample in span.samples:
            assert sample.time_s == pytest.approx(sample.index / 25)
            assert psnr(decode_image(sample.image), pictures[sample.index]) > 34


def test_motion_is_measured_on_the_sampled_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[float, ...]] = []

    def measure(other: np.ndarray[Any, Any], own: np.ndarray[Any, Any], seconds: float) -> FrameMotion:
        calls.append((float(other.mean()), float(own.mean()), seconds))
        return FrameMotion(own.astype(np.float32) / 255 * sampling.MOTION_SCALE, 0.25)

    monkeypatch.setattr(sampling, "measure_motion", measure)
    # Frame i is grey level 40 + 3 i, so that a level names a frame.
    greys = (np.full((96, 128, 3), 40 + 3 * i, np.uint8) for i in range(50))
    (span,) = slice_path(write_video(tmp_path / "v.mp4", greys), min_length=1)
    assert len(calls) == len(span.samples) == 4
    for sample, (other, own, seconds) in zip(span.samples, calls, strict=True):
        assert own == pytest.approx(40 + 3 * sample.index, abs=1.5)
        gap = round((other - own) / 3)
        assert abs(gap) == 3 and seconds == pytest.approx(0.12)
        # The map that `measure_motion` lays on the second frame given is the one that is stored.
        assert decode_image(sample.motion).mean() == pytest.approx(own, abs=1)
    assert span.camera_motion == 0.25


def test_the_last_frame_of_a_shot_is_held_against_an_earlier_one(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([30, 30], 128, 96))
    for span in slice_path(video, min_length=1, sample_fps=25):
        assert span.samples[-1].index == span.end_frame - 1
        assert all(sample.motion is not None for sample in span.samples)


def test_motion_is_not_measured_across_a_cut(tmp_path: Path) -> None:
    still = [next(shots([1], 128, 96)) for _ in range(30)]
    other = [255 - picture for picture in still]
    video = write_video(tmp_path / "v.mp4", [*still, *other])
    for span in slice_path(video, min_length=1, sample_fps=10, min_shot=0.2):
        assert span.motion == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("cut", ["auto", "encode"])
def test_the_same_video_gives_the_same_bytes(tmp_path: Path, cut: str) -> None:
    video = write_video(tmp_path / "v.mp4", shots([50, 60]))
    first, again = (slice_path(video, min_length=1, max_length=2, cut=cut) for _ in range(2))
    assert [contents(span) for span in first] == [contents(span) for span in again]


def contents(span: Span) -> tuple[Any, ...]:
    return (
        span.start_frame,
        span.end_frame,
        span.status,
        span.file.read_bytes() if span.file else None,
        span.samples,
    )


@pytest.mark.parametrize("left_out", [0, 1, 2, 3])
def test_spans_that_are_done_do_not_change_the_others(tmp_path: Path, left_out: int) -> None:
    video = write_video(tmp_path / "v.mp4", shots([50, 60, 70]))
    config: dict[str, Any] = {"min_length": 1, "max_length": 2}
    whole = slice_path(video, **config)
    done = frozenset(span.start_frame for i, span in enumerate(whole) if i != left_out)
    again = slice_path(video, done, **config)
    assert len(again) == len(whole) == 5
    for mine, theirs in zip(again, whole, strict=True):
        if theirs.start_frame in done:
            assert (mine.status, mine.file, mine.start_frame) == ("done", None, theirs.start_frame)
        else:
            assert contents(mine) == contents(theirs)


def test_a_clip_after_one_that_is_done_is_copied_as_in_a_whole_run(tmp_path: Path) -> None:
    options = {"preset": "medium", "bf": "3", "x264-params": "scenecut=0:open-gop=0"}
    video = write_video(tmp_path / "v.mp4", shots([75, 75, 75]), gop=75, options=options)
    spans, data = [], []
    for number, done in enumerate((frozenset[int](), frozenset([0]), frozenset([0, 75]))):
        folder = tmp_path / str(number)
        folder.mkdir()
        spans.append(list(Slicer(video, SliceConfig(), folder, done).slice_video()))
        last = spans[-1][-1]
        assert last.file is not None and last.cut == "copy"
        data.append((last.start_frame, last.end_frame, last.file.read_bytes()))
    assert data[0] == data[1] == data[2]


def test_a_damaged_stretch_loses_only_its_own_clips(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([50, 50, 50]), gop=25)
    data = bytearray(video.read_bytes())
    start = len(data) // 2
    data[start : start + len(data) // 50] = bytes(len(data) // 50)
    video.write_bytes(bytes(data))
    spans = slice_path(video, min_length=1)
    assert [span.status for span in spans][::2] == ["open", "open"]
    assert spans[1].status == "failed"
    assert (spans[1].reason or "").startswith("damaged frames: ")


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_what_is_there_of_a_cut_off_file_gives_clips_and_the_rest_a_reason(
    tmp_path: Path, container: str
) -> None:
    whole = write_video(tmp_path / f"v.{container}", shots([50, 50, 50]), faststart=True)
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) * 6 // 10])
    *clips, last, tail = slice_path(whole, min_length=0.1)
    assert [span.status for span in (*clips, last)] == ["open"] * (len(clips) + 1)
    assert (tail.status, tail.start_frame) == ("failed", last.end_frame)
    assert (tail.reason or "").startswith("the file ends early")
    assert tail.value == last.end_frame and tail.threshold == 150


def test_a_trimmed_edit_list_is_no_missing_tail(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([50, 50]), gop=10)
    data = bytearray(video.read_bytes())
    at = data.index(b"elst") + 4 + 8  # ISO 14496-12, 8.6.6: duration, then media time
    data[at : at + 4] = (1500).to_bytes(4, "big")  # ms, of 4000
    video.write_bytes(bytes(data))
    spans = slice_path(video, min_length=1)
    assert [span.status for span in spans] == ["open"]
    assert 36 <= spans[0].end_frame <= 40


def test_a_file_without_frames_has_this_reason(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([30]), faststart=True)
    data = video.read_bytes()
    video.write_bytes(data[: data.index(b"mdat") + 4])
    with pytest.raises(BadVideoError, match="no frame could be decoded"):
        slice_path(video)


_PEAK = """
import resource, sys, tempfile
from pathlib import Path
from curation.config import SliceConfig

from curation.video import sampling
from curation.video.slicer import Slicer
with tempfile.TemporaryDirectory() as folder:
    for span in Slicer(Path(sys.argv[1]), SliceConfig(cut=sys.argv[2]), Path(folder)).slice_video():
        if span.file:
            span.file.unlink()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("cut", ["auto", "encode"])
def test_memory_does_not_grow_with_the_video(tmp_path: Path, cut: str) -> None:
    def peak_mb(seconds: int) -> int:
        lengths = [10 * 5] * (seconds // 5)
        video = write_video(tmp_path / f"{seconds}.mp4", shots(lengths, 640, 360), fps=10)
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(video), cut], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    # 60 s are 600 frames, 200 MB as they come out of the decoder.
    assert peak_mb(60) - peak_mb(10) < 25
