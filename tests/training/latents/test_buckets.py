"""Which size and length a clip gets, and which of its frames."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise.errors import RepriseError
from reprise.video.cover import compute_cover, compute_enlargement
from reprise.video.ticks import sample_at_ticks
from training.latents.buckets import (
    SizeBuckets,
    SizeGrid,
    check_frames,
    list_sizes,
)
from training.latents.config import BucketsConfig
from training.models.cogvideox import CogVideoXFamily
from training.models.wan import WanFamily

GRID = SizeGrid(multiple=16, temporal=4)
LENGTHS = WanFamily().get_clip_lengths(16)


def buckets(**config: object) -> SizeBuckets:
    return SizeBuckets(BucketsConfig(**config), GRID, LENGTHS)


def test_usual_sizes_stay_what_they_are() -> None:
    ours = buckets()
    assert ours.choose_size(480, 832) == (480, 832) and ours.choose_size(832, 480) == (832, 480)
    assert ours.choose_size(1080, 1920) == ours.choose_size(720, 1280)
    height, width = ours.choose_size(1080, 1920)
    assert abs(width / height / (16 / 9) - 1) < 0.03 and 0.93 < height * width / (480 * 832) <= 1
    assert ours.choose_size(1000, 1000) in ((624, 640), (640, 624))
    assert ours.fps == 16 and ours.frames == (81, 65, 49, 33, 17)
    assert SizeBuckets(BucketsConfig(), GRID, CogVideoXFamily().get_clip_lengths(16)).fps == 8
    assert SizeBuckets(BucketsConfig(), GRID, WanFamily().get_clip_lengths(48)).fps == 24


@settings(max_examples=200, deadline=None)
@given(st.integers(40, 4000), st.integers(40, 4000), st.sampled_from([16, 32]), st.integers(12, 20))
def test_a_size_can_be_taken_fits_the_area_and_enlarges_and_crops_no_more_than_allowed(
    height: int, width: int, multiple: int, power: int
) -> None:
    ours = SizeBuckets(BucketsConfig(area=2 ** (power + 4)), SizeGrid(multiple, 4), LENGTHS)
    size = ours.choose_size(height, width)
    if isinstance(size, str):
        assert size in ("too small", "aspect ratio")
        return
    assert size[0] % multiple == size[1] % multiple == 0
    assert size[0] * size[1] <= ours.config.area
    assert compute_enlargement(size, height, width) <= 1.1
    resized, (top, left) = compute_cover(size, height, width)
    assert 0 <= top <= resized[0] - size[0] and 0 <= left <= resized[1] - size[1]
    kept = size[0] * size[1] / (resized[0] * resized[1])
    assert kept >= 0.75 - 0.02
    # One side is taken whole: nothing is cut off that need not be.
    assert resized[0] == size[0] or resized[1] == size[1]


def test_small_clips_get_a_smaller_area_instead_of_being_blown_up() -> None:
    size = buckets().choose_size(180, 320)
    assert isinstance(size, tuple) and compute_enlargement(size, 180, 320) <= 1.1
    assert size[0] * size[1] > 180 * 320 / 2.5
    assert buckets().choose_size(30, 40) == "too small"
    assert buckets(sizes=("480x832",)).choose_size(180, 320) == "smaller than every size"
    assert buckets(sizes=("480x832",), enlarge=3).choose_size(180, 320) == (480, 832)
    assert buckets(sizes=("480x832", "832x480")).choose_size(1920, 1080) == (832, 480)
    assert buckets(sizes=("480x832",)).choose_size(1920, 1080) == "aspect ratio"


def test_sizes_have_no_larger_one_of_the_same_width() -> None:
    sizes = list_sizes(480 * 832, 16)
    assert (480, 832) in sizes and (832, 480) in sizes and len(sizes) == len({w for _, w in sizes})


def test_lengths_go_to_the_next_smaller_one() -> None:
    ours = buckets(frames=(17, 81, 49))
    assert [ours.choose_length(n) for n in (200, 81, 80, 49, 17, 16)] == [81, 81, 49, 49, 17, None]


@pytest.mark.parametrize(
    ("frames", "nearest"), [(80, "77 and 81"), (0, "1 and 5"), (2, "1 and 5"), (16, "13 and 17")]
)
def test_frames_that_the_vae_cannot_take_are_refused_with_the_nearest(frames: int, nearest: str) -> None:
    with pytest.raises(RepriseError, match=rf"{frames} frames is not 4n\+1.*nearest are {nearest}"):
        buckets(frames=(81, frames))
    check_frames(1, 4)


def test_sizes_that_the_model_cannot_take_are_refused_with_the_nearest() -> None:
    with pytest.raises(RepriseError, match=r"480x850 is no multiple of 16.*nearest is 480x848"):
        buckets(sizes=("480x850",))
    with pytest.raises(RepriseError, match=r"buckets\.area"):
        buckets(area=100)
    with pytest.raises(ValueError, match="is no size"):
        BucketsConfig(sizes=("480p",))


def ticks(times: list[float], fps: float) -> list[float]:
    frames = [(time - times[0], time) for time in times]
    got = list(sample_at_ticks(iter(frames), fps))  # type: ignore[arg-type]
    assert [tick for tick, _ in got] == list(range(len(got)))
    return [frame for _, frame in got]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("source", "fps"), [(24, 16), (25, 16), (30, 16), (29.97, 8), (60, 8), (16, 16), (12, 16)]
)
def test_frames_are_those_nearest_to_the_ticks(source: float, fps: float) -> None:
    times = [n / source for n in range(50)]
    got = ticks(times, fps)
    assert len(got) == int(times[-1] * fps + 1e-6) + 1
    for tick, time in enumerate(got):
        assert abs(time - tick / fps) <= min(abs(other - tick / fps) for other in times) + 1e-6


def test_frames_of_a_varying_rate_are_taken_by_their_time() -> None:
    times = [0, 0.02, 0.04, 0.5, 0.51, 0.98, 1.0]
    assert ticks(times, 4) == [0, 0.04, 0.5, 0.98, 1.0] or ticks(times, 4) == [0, 0.04, 0.5, 0.51, 1.0]
    assert ticks([3.0], 16) == [3.0]
