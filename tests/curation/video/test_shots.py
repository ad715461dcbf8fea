"""Shots begin where `detect` of PySceneDetect begins them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from scenedetect import detect
from scenedetect.detectors import AdaptiveDetector, ContentDetector, ThresholdDetector

from curation.config import SliceConfig
from curation.video.frames import get_small_size
from curation.video.slicer import Slicer
from tests.videos import fading, shots, write_video

MIN_SHOT = 15  # frames, 0.6 s


def cuts(path: Path, **settings: Any) -> list[int]:
    """Frames at which a new span begins, of a clip or of a shot too short for one; none is split."""
    config = SliceConfig(min_length=1, max_length=1000, min_shot=MIN_SHOT / 25, **settings)
    folder = path.with_suffix(".clips")
    folder.mkdir()
    return [span.start_frame for span in Slicer(path, config, folder).slice_video()][1:]


def detect_expected(path: Path, detector: Any) -> list[int]:
    return [start.frame_num for start, _ in detect(str(path), detector, backend="pyav")][1:]


def agree(mine: list[int], theirs: list[int]) -> bool:
    """Equal but for the scaler of the small picture: within a frame."""
    return len(mine) == len(theirs) and all(abs(a - b) <= 1 for a, b in zip(mine, theirs, strict=True))


# A flash of 4 frames and shots of 3 and 8: shorter than `min_shot`, so they are merged.
LENGTHS = [40, 33, 4, 37, 3, 8, 50, 21]


@pytest.mark.parametrize("size", [(160, 120), (512, 288), (288, 512)])
@pytest.mark.parametrize("name", ["content", "adaptive"])
def test_cuts_are_those_of_pyscenedetect(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    video = write_video(tmp_path / "v.mp4", shots(LENGTHS, *size))
    detectors = {"content": ContentDetector, "adaptive": AdaptiveDetector}
    theirs = detect_expected(video, detectors[name](min_scene_len=MIN_SHOT))
    assert len(theirs) >= 3
    assert agree(cuts(video, detector=name), theirs)


@pytest.mark.parametrize("dark", [0, 6, 40])
def test_fades_are_cut_in_their_middle(tmp_path: Path, dark: int) -> None:
    video = write_video(tmp_path / "v.mp4", fading([50, 40, 60], dark))
    theirs = detect_expected(video, ThresholdDetector(min_scene_len=MIN_SHOT))
    assert len(theirs) == 2
    assert agree(cuts(video, detector="threshold"), theirs)


def test_a_fade_longer_than_what_is_held_back_is_cut_when_the_picture_returns(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", fading([50, 60], 90))
    (middle,) = detect_expected(video, ThresholdDetector(min_scene_len=MIN_SHOT))
    (cut,) = cuts(video, detector="threshold")
    assert middle < cut < 50 + 90 + 8


@pytest.mark.parametrize("threshold", [10.0, 27.0, 60.0])
def test_the_threshold_is_that_of_the_detector(tmp_path: Path, threshold: float) -> None:
    video = write_video(tmp_path / "v.mp4", shots([30, 30, 30, 30]))
    theirs = detect_expected(video, ContentDetector(threshold=threshold, min_scene_len=MIN_SHOT))
    assert agree(cuts(video, detector="content", threshold=threshold), theirs)


def test_without_a_detector_only_length_decides(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([30, 30]))
    assert cuts(video, detector="none") == []


def test_rates_of_television_do_not_shift_cuts(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", shots([40, 15, 40]), fps=Fraction(30000, 1001))
    config = SliceConfig(min_length=0.04, max_length=1000, min_shot=0.5)
    spans = list(Slicer(video, config, tmp_path).slice_video())
    assert [span.start_frame for span in spans] == [0, 40, 55]


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((1920, 1080), (256, 144)),
        ((1080, 1920), (144, 256)),
        ((160, 120), (160, 120)),
        ((4000, 20), (256, 8)),
    ],
)
def test_shots_are_looked_at_in_frames_of_the_size_that_thresholds_were_tuned_for(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    assert get_small_size(*size) == small
