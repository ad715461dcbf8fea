"""A clip has the frames of the source from first to last, equal bit for bit if packets were copied."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.config import SliceConfig
from curation.video.cut import count_clean_prefix
from curation.video.slicer import Slicer, Span
from tests.videos import (
    AV1,
    VP9,
    X264,
    X265,
    duration,
    psnr,
    read_pictures,
    read_planes,
    read_times,
    shots,
    write_video,
)

BFRAMES = {"preset": "veryfast", "crf": "20", "bf": "3", "x264-params": "scenecut=40:keyint=250"}


def cut_video(path: Path, **settings: Any) -> list[Span]:
    folder = path.with_suffix(".clips")
    folder.mkdir()
    return list(
        Slicer(path, SliceConfig(**{"min_length": 1, "max_length": 4, **settings}), folder).slice_video()
    )


def the_clip(path: Path, **settings: Any) -> tuple[Path, Span]:
    (span,) = cut_video(path, **settings)
    assert span.file is not None, span
    return span.file, span


def assert_same_frames(clip: Path, source: list[np.ndarray[Any, Any]], span: Span) -> None:
    frames = read_planes(clip)
    assert len(frames) == span.num_frames > 0
    for mine, theirs in zip(frames, source[span.start_frame : span.end_frame], strict=True):
        assert np.array_equal(mine, theirs)


def test_copied_clips_are_the_sources_frames_bit_by_bit(tmp_path: Path) -> None:
    # A keyframe at each cut, B-frames in between, as an encoder writes it by itself.
    video = write_video(tmp_path / "v.mp4", shots([50, 40, 60]), options=BFRAMES)
    source = read_planes(video)
    spans = cut_video(video)
    assert [span.cut for span in spans] == ["copy"] * 3
    for span in spans:
        assert span.file is not None
        assert_same_frames(span.file, source, span)


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov"])
def test_a_copied_clip_begins_at_zero_and_keeps_its_times(tmp_path: Path, container: str) -> None:
    video = write_video(
        tmp_path / f"v.{container}", shots([50, 60]), options=BFRAMES, fps=Fraction(30000, 1001)
    )
    for span in cut_video(video):
        assert span.file is not None and span.cut == "copy"
        times = read_times(span.file)
        assert times[0] == 0
        assert np.diff(times) == pytest.approx(1001 / 30000, abs=1.1e-3)
        assert duration(span.file) == pytest.approx(span.end_s - span.start_s, abs=1.5 / 30)


@pytest.mark.parametrize("options", [X264, BFRAMES], ids=["no B-frames", "B-frames"])
def test_clips_that_max_length_ends_are_exact_where_copied_and_near_where_encoded(
    tmp_path: Path, options: dict[str, str]
) -> None:
    video = write_video(tmp_path / "v.mp4", shots([150]), options=options)
    source, pictures = read_planes(video), read_pictures(video)
    spans = cut_video(video, max_length=2)
    assert [span.cut for span in spans] == ["copy", "encode", "encode"]
    for span in spans:
        assert span.file is not None
        if span.cut == "copy":
            assert_same_frames(span.file, source, span)
        for mine, theirs in zip(read_pictures(span.file), pictures[span.start_frame :], strict=False):
            assert psnr(mine, theirs) > 33


def test_a_copy_falls_at_most_a_group_of_b_frames_short_of_its_cut(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([150]), options=BFRAMES)
    for before, after in pairwise(cut_video(video, max_length=2)):
        assert 0 <= after.start_frame - before.end_frame <= 3
        assert before.end_s == pytest.approx(before.end_frame / 25)


def test_cuts_between_keyframes_are_encoded_and_frame_exact(tmp_path: Path) -> None:
    no_keyframes = {**BFRAMES, "x264-params": "scenecut=0:keyint=250"}
    video = write_video(tmp_path / "v.mp4", shots([50, 40, 60]), options=no_keyframes)
    pictures = read_pictures(video)
    spans = cut_video(video)
    assert [span.cut for span in spans] == ["copy", "encode", "encode"]
    assert [span.start_frame for span in spans] == [0, 50, 90]
    for span in spans[1:]:
        assert span.file is not None
        mine = read_pictures(span.file)
        assert len(mine) == span.num_frames
        assert all(psnr(a, b) > 33 for a, b in zip(mine, pictures[span.start_frame :], strict=False))


@pytest.mark.parametrize("bf", [3, 0])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "params",
    [
        # Every fifth of a second a keyframe whose following B-frames need the group before it.
        "open-gop=1:keyint=5:min-keyint=1:scenecut=0:b-adapt=0",
        # Keyframes in name only: a band of new blocks wanders over the picture.
        "intra-refresh=1:keyint=5:scenecut=0",
    ],
    ids=["open groups", "intra refresh"],
)
def test_keyframes_that_need_frames_before_them_start_no_copy(
    tmp_path: Path, params: str, container: str, bf: int
) -> None:
    options = {"preset": "veryfast", "crf": "20", "bf": str(bf), "x264-params": params}
    video = write_video(tmp_path / f"v.{container}", shots([50, 45, 60]), options=options)
    source, pictures = read_planes(video), read_pictures(video)
    spans = cut_video(video)
    assert [span.start_frame for span in spans] == [0, 50, 95]
    for span in spans:
        assert span.file is not None
        if span.cut == "copy":
            assert_same_frames(span.file, source, span)
        mine = read_pictures(span.file)
        assert all(psnr(a, b) > 33 for a, b in zip(mine, pictures[span.start_frame :], strict=False))


@pytest.mark.parametrize(
    ("stamps", "last", "count"),
    [
        ([0, 1, 2, 3], 3, 4),
        ([0, 1, 2, 3], 1, 2),
        ([0, 4, 2, 1, 3], 4, 5),
        ([0, 4, 2, 1, 3], 3, 1),  # frames 1 to 3 are there, but only after frame 4
        ([0, 3, 1, 2, 6, 4, 5], 4, 4),
        ([5, 3, 4, 6], 6, 4),
        ([5, 3, 4, 6], 4, 0),
    ],
)
def test_a_stretch_of_packets_ends_where_no_frame_is_left_out(
    stamps: list[int], last: int, count: int
) -> None:
    assert count_clean_prefix(stamps, last) == count


def uneven(frames: int) -> list[float]:
    """30, then 12, then 25 frames per second."""
    steps = [1 / 30] * 30 + [1 / 12] * 12 + [1 / 25] * frames
    return [0.0, *np.cumsum(steps).tolist()][:frames]


@pytest.mark.parametrize("cut", ["auto", "encode"])
def test_a_variable_frame_rate_is_kept(tmp_path: Path, cut: str) -> None:
    times = uneven(80)
    video = write_video(tmp_path / "v.mp4", shots([80]), times=times)
    clip, span = the_clip(video, cut=cut)
    assert span.cut == {"auto": "copy", "encode": "encode"}[cut]
    assert read_times(clip) == pytest.approx(times, abs=1e-3)
    assert span.end_s - span.start_s == pytest.approx(times[-1], abs=0.06)
    assert duration(clip) == pytest.approx(span.end_s - span.start_s, abs=0.03)


def test_encoded_clips_last_as_long_as_their_frames_are_shown(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([50, 60]), times=uneven(110))
    for span in cut_video(video, cut="encode"):
        assert span.file is not None
        assert duration(span.file) == pytest.approx(span.end_s - span.start_s, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "decibels", "settings"),
    [
        ("hevc10.mp4", 33, {"codec": "libx265", "pixels": "yuv420p10le", "options": X265}),
        ("vp9.webm", 33, {"codec": "libvpx-vp9", "options": VP9}),
        ("av1.mp4", 33, {"codec": "libsvtav1", "options": AV1}),
        ("loop.gif", 20, {"codec": "gif", "pixels": "rgb8", "options": {}, "fps": 10}),  # dithered
        ("444.mp4", 30, {"pixels": "yuv444p"}),
        ("mpeg4.avi", 33, {"codec": "mpeg4", "options": {"qscale": "3"}}),
        ("mpeg2.ts", 33, {"codec": "mpeg2video", "options": {"qscale": "3"}}),
        ("full_range.mkv", 33, {"pixels": "yuvj420p"}),
    ],
)
def test_every_codec_gives_a_clip_that_looks_like_it(
    tmp_path: Path, name: str, decibels: float, settings: dict[str, Any]
) -> None:
    video = write_video(tmp_path / name, shots([40]), **settings)
    pictures = read_pictures(video)
    clip, span = the_clip(video, cut="encode")
    mine = read_pictures(clip)
    assert len(mine) == span.num_frames == 40
    assert min(psnr(a, b) for a, b in zip(mine, pictures, strict=True)) > decibels


def test_colours_are_read_from_a_clip_as_from_its_source(tmp_path: Path) -> None:
    high_definition = {"colorspace": 1, "color_primaries": 1, "color_trc": 1}  # Rec. 709, ITU-T H.273
    video = write_video(tmp_path / "v.mp4", shots([40]), colours=high_definition)
    clip, _ = the_clip(video, cut="encode")
    mine, theirs = read_pictures(clip)[10], read_pictures(video)[10]
    assert psnr(mine, theirs) > 38


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([40], 161, 121), pixels="yuv444p")
    clip, span = the_clip(video)
    assert span.cut == "encode"
    assert read_pictures(clip)[0].shape == (120, 160, 3)


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([40], 144, 96), aspect=Fraction(16, 9))
    clip, span = the_clip(video)
    assert span.cut == "encode"
    assert read_pictures(clip)[0].shape == (96, 256, 3)


def test_larger_videos_are_scaled_down_and_smaller_ones_are_not(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([5], 3840, 2160), fps=4)
    clip, span = the_clip(video)
    assert span.cut == "encode"
    assert read_pictures(clip)[0].shape == (1080, 1920, 3)
    small = write_video(tmp_path / "small.mp4", shots([40]))
    assert read_pictures(the_clip(small)[0])[0].shape == (120, 160, 3)


def red_corner(frames: int) -> list[np.ndarray[Any, Any]]:
    pictures = list(shots([frames]))
    for picture in pictures:
        picture[:40, :40] = (250, 0, 0)
    return pictures


@pytest.mark.parametrize(
    ("matrix", "corner", "shape"),
    [
        # ISO 14496-12, 8.3.2: (x, y) is shown at (a x + c y + tx, b x + d y + ty); 160 x 120 px.
        ((0, 1, -1, 0, 120, 0), "top right", (160, 120, 3)),
        ((0, -1, 1, 0, 0, 160), "bottom left", (160, 120, 3)),
        ((-1, 0, 0, -1, 160, 120), "bottom right", (120, 160, 3)),
    ],
)
def test_turned_videos_come_out_upright(
    tmp_path: Path, matrix: tuple[int, ...], corner: str, shape: tuple[int, ...]
) -> None:
    video = write_video(tmp_path / "v.mp4", red_corner(40))
    set_matrix(video, matrix)
    clip, span = the_clip(video)
    assert span.cut == "encode"
    picture = read_pictures(clip)[5]
    assert picture.shape == shape
    rows = slice(0, 30) if "top" in corner else slice(-30, None)
    columns = slice(0, 30) if "left" in corner else slice(-30, None)
    assert picture[rows, columns].mean(axis=(0, 1)) == pytest.approx((250, 0, 0), abs=12)
    assert picture[:30, :30, 0].mean() < 150 or corner == "top left"


def set_matrix(path: Path, matrix: tuple[int, ...]) -> None:
    a, b, c, d, x, y = (value << 16 for value in matrix)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, x, y, 1 << 30], ">i4").tobytes()
    path.write_bytes(bytes(data))


def test_a_change_of_size_midway_gives_clips_in_their_own_shapes(tmp_path: Path) -> None:
    large = write_video(tmp_path / "large.ts", shots([40]))
    small = write_video(tmp_path / "small.ts", shots([40], 96, 72))
    both = tmp_path / "both.ts"
    both.write_bytes(large.read_bytes() + small.read_bytes())
    spans = cut_video(both, detector="none")
    assert [(span.start_frame, span.status) for span in spans] == [(0, "open"), (40, "open")]
    for span, (height, width) in zip(spans, [(120, 160), (72, 96)], strict=True):
        assert span.file is not None and (span.height, span.width) == (height, width)
        assert {picture.shape for picture in read_pictures(span.file)} == {(height, width, 3)}


@pytest.mark.samples
def test_copies_of_real_videos_are_exact(tmp_path: Path, samples_dir: Path) -> None:
    video = tmp_path / "cups.mp4"
    video.symlink_to(samples_dir / "cups.mp4")
    clip, span = the_clip(video, max_length=12)
    assert span.cut == "copy"
    assert_same_frames(clip, read_planes(video), span)
