"""The files in ../shared/faults come out right in both halves. Where they are absent, nothing is run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from curation.imaging.codec import decode_image
from curation.sources.list_videos import list_videos
from curation.video.slicer import Span
from reprise.video.colour import HLG
from reprise.video.decode import decode_frames
from reprise.video.open_video import open_video
from tests.reprise.video.test_kinds_of_faults import get_corners, read_first, slice_file
from tests.videos import read_pictures
from training.latents.config import EncodeConfig
from training.latents.sources.videos import VideoSource
from training.models.pictures import convert_to_rgb, open_picture

FAULTS = Path(__file__).parents[4] / "shared" / "faults"
pytestmark = pytest.mark.skipif(not FAULTS.is_dir(), reason="the given files are not here")

RED, LIME, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def slice_given(tmp_path: Path, name: str) -> list[Span]:
    shutil.copyfile(FAULTS / name, tmp_path / name)
    return slice_file(tmp_path / name)


def measure_width_to_height(picture: NDArray[np.uint8]) -> float:
    """Of what is bright."""
    bright = picture[..., 1] > 127
    width, height = (int(np.ptp(np.flatnonzero(bright.any(axis=axis)))) for axis in (0, 1))
    return width / height


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("sei_key.mp4", [(0, 150)]),
        ("ogcut.mp4", [(0, 200)]),
        ("mediarec.webm", [(0, 90), (90, 180), (180, 270), (270, 360)]),
        ("gap.ts", [(0, 100), (100, 200)]),
        ("sizechange.ts", [(0, 100), (100, 200)]),
        ("h264.avi", [(0, 125)]),
        ("twostreams.mkv", [(0, 75)]),
        ("interlaced.mp4", [(0, 75)]),
    ],
)
def test_its_clips_hold_all_of_its_frames(tmp_path: Path, name: str, frames: list[tuple[int, int]]) -> None:
    spans = slice_given(tmp_path, name)
    assert [(span.status, span.start_frame, span.end_frame) for span in spans] == [
        ("open", *each) for each in frames
    ]
    for span in spans:
        assert span.file is not None and len(read_pictures(span.file)) == span.num_frames
    assert read_first(FAULTS / name).std() > 10  # there is a picture for training, too


@pytest.mark.parametrize("name", ["sei_key.mp4", "ogcut.mp4"])
def test_pictures_are_those_of_a_tolerant_decoder(name: str) -> None:
    with av.open(str(FAULTS / name)) as container:
        expected = [frame.to_ndarray() for frame in container.decode(video=0)]
    with open_video(FAULTS / name) as source:
        found = [decoded.frame.to_ndarray() for decoded in decode_frames(source)]
        assert source.damage == []
    assert len(found) == len(expected) and all(map(np.array_equal, found, expected))


def test_a_browsers_recording_has_the_rate_of_its_frames(tmp_path: Path) -> None:
    (tmp_path / "a.webm").write_bytes((FAULTS / "mediarec.webm").read_bytes())
    with open_video(tmp_path / "a.webm") as source:
        assert source.info.fps == 30
    span, *_ = slice_file(tmp_path / "a.webm")
    assert span.file is not None
    with av.open(str(span.file)) as container:
        keys = [frame.key_frame for frame in container.decode(video=0)]
    assert sum(keys) == 6  # one every half second


@pytest.mark.parametrize(
    ("name", "corners"),
    [("hflip.mp4", [LIME, RED, YELLOW, BLUE]), ("vflip.mp4", [BLUE, YELLOW, RED, LIME])],
)
def test_mirrored_files_are_shown_mirrored(tmp_path: Path, name: str, corners: list[tuple[int, ...]]) -> None:
    (span,) = slice_given(tmp_path, name)
    assert span.file is not None
    for picture in (
        decode_image(span.samples[0].image),
        read_pictures(span.file)[0],
        read_first(FAULTS / name),
    ):
        assert get_corners(picture) == corners


@pytest.mark.parametrize("name", ["sar.mp4", "captions/a.mp4"])
def test_wide_pixels_are_made_square(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.mp4").write_bytes((FAULTS / name).read_bytes())
    (span,) = slice_file(tmp_path / "a.mp4")
    assert (span.width, span.height) == (640, 360)
    for picture in (decode_image(span.samples[0].image), read_first(FAULTS / name)):
        assert measure_width_to_height(picture) == pytest.approx(1, abs=0.06)


def test_a_change_of_size_gives_clips_of_both_sizes(tmp_path: Path) -> None:
    spans = slice_given(tmp_path, "sizechange.ts")
    assert [(span.width, span.height) for span in spans] == [(320, 240), (640, 360)]


def test_avi_frames_are_forty_milliseconds_apart() -> None:
    with open_video(FAULTS / "h264.avi") as source:
        times = [decoded.time_s for decoded in decode_frames(source)]
    assert np.diff(times) == pytest.approx(0.04)


def test_hlg_becomes_the_colours_that_it_was_made_of(tmp_path: Path) -> None:
    (span,) = slice_given(tmp_path, "hlg.mp4")
    assert span.transfer == HLG and span.file is not None
    wanted = [(200, 50, 50), (50, 200, 50), (50, 50, 200), (128, 128, 128)]
    for picture in (decode_image(span.samples[0].image), read_pictures(span.file)[0]):
        height, width = picture.shape[:2]
        spots = [picture[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
        found = {tuple(map(int, spot)) for spot in spots}
        for colour in wanted:
            assert min(float(np.abs(np.subtract(colour, spot)).max()) for spot in found) < 16, colour


def test_grey_pictures_of_16_bits_are_those_of_8() -> None:
    deep, shallow = (read_grey(bits) for bits in (16, 8))
    assert np.abs(deep - shallow).max() <= 1 and shallow.std() > 10


def test_no_caption_is_made_up() -> None:
    """Both halves read the same, or the same refusal."""
    for name in ("list.jsonl", "nan.jsonl", "commas.csv", "semi.csv", ""):
        texts = []
        for read in (read_by_curation, read_by_training):
            try:
                texts.append(read(FAULTS / "captions" / name))
            except Exception as error:
                texts.append({"error": str(error)})
        assert texts[0] == texts[1], name
        for text in texts[0].values():
            assert not text or not any(bad in text for bad in ("[", "nan", "\ufeff", "\ufffd")), text


def read_by_curation(path: Path) -> dict[str, str]:
    return {row["source_path"].rpartition("/")[2]: row["caption"] or "" for row in list_videos(str(path))}


def read_by_training(path: Path) -> dict[str, str]:
    planned = VideoSource(str(path), EncodeConfig(captions="optional")).plan_items()
    pairs = (json.loads(each.place[0]) for each in planned)
    return {name.rpartition("/")[2]: caption for name, caption in pairs}


def test_a_caption_that_is_not_utf8_is_said_to_be(tmp_path: Path) -> None:
    (row,) = list_videos(str(FAULTS / "sidecar"))
    assert row["problem"] == "its caption file plain.txt cannot be read: not UTF-8 text"


def read_grey(bits: int) -> NDArray[np.int16]:
    return np.asarray(convert_to_rgb(open_picture(FAULTS / f"gray{bits}.png")), np.int16)
