"""Each file of the corpus has the fault of its name, and no other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from curation.sources.list_videos import list_videos
from tests.faults import CAPTION, FAILED, FRAMES, OK, make_fault_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], float]:
    folder = tmp_path_factory.mktemp("corpus")
    started = time.monotonic()
    expected = make_fault_corpus(folder)
    return folder, expected, time.monotonic() - started


def look(path: Path) -> dict[str, Any]:
    """What a player would see of the first real picture stream."""
    with av.open(str(path)) as file:
        cover = av.stream.Disposition.attached_pic
        videos = [each for each in file.streams.video if not each.disposition & cover]
        stream = videos[0]
        keys, times, broken = 0, [], False
        frame: Any = None
        pictures = 0
        try:
            for frame in file.decode(stream):
                keys += frame.key_frame
                times.append(frame.time)
                pictures += 1
                broken |= frame.is_corrupt
        except av.error.FFmpegError:
            broken = True
        return {
            "codec": stream.codec_context.codec.canonical_name,
            "pixels": stream.codec_context.pix_fmt,
            "size": (stream.width, stream.height),
            "frames": pictures,
            "keys": keys,
            "times": np.array(times),
            "rotation": frame.rotation,
            "interlaced": frame.interlaced_frame,
            "broken": broken,
            "videos": len(videos),
            "covers": len(file.streams.video) - len(videos),
            "sounds": len(file.streams.audio),
            "format": file.format.name,
        }


def test_it_is_built_in_seconds_and_every_file_is_listed(corpus: tuple[Path, dict[str, str], float]) -> None:
    folder, expected, seconds = corpus
    assert seconds < 25
    rows = {Path(row["source_path"]).name: row for row in list_videos(str(folder))}
    assert rows.keys() == expected.keys()
    assert {name for name, row in rows.items() if row["problem"]} == {"zz_copy_of_plain.mp4"}
    assert {name for name, row in rows.items() if row["caption"] != CAPTION} == {
        "no_caption.mp4",
        "zz_copy_of_plain.mp4",
    }


def test_the_good_ones_last_long_enough_and_show_something_that_moves(
    corpus: tuple[Path, dict[str, str], float],
) -> None:
    folder, expected, _ = corpus
    for name, outcome in expected.items():
        if outcome != OK:
            continue
        seen = look(folder / name)
        assert 2.7 < np.ptp(seen["times"]) < 6.5, name
        assert not seen["broken"] or name == "half_missing.mp4", name
    with av.open(str(folder / "plain.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in file.decode(video=0)]
    red = [((f[..., 0] > 150) & (f[..., 1] < 90) & (f[..., 2] < 90)) for f in frames]
    assert all(0.02 < share.mean() < 0.10 for share in red)
    columns = [float(np.nonzero(each)[1].mean()) for each in red]
    assert np.ptp(columns) > 150
    assert frames[0][:40].std() > 15  # a wall with texture


# Properties that each file must have; the others are as in the plain file.
PLAIN = {
    "codec": "h264",
    "pixels": "yuv420p",
    "size": (320, 240),
    "frames": FRAMES,
    "rotation": 0,
    "videos": 1,
}
SHOWS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"sounds": 0, "covers": 0, "interlaced": False},
    "sound.mov": {"sounds": 1},
    "matroska.mkv": {"format": "matroska,webm"},
    "one_keyframe.mp4": {"keys": 1},
    "rotated.mp4": {"rotation": -90},
    "odd_size_444.mp4": {"size": (321, 241), "pixels": "yuv444p"},
    "odd_size.webm": {"size": (321, 241), "codec": "vp9"},
    "vp9.webm": {"codec": "vp9"},
    "av1.mp4": {"codec": "av1"},
    "hevc_10bit.mp4": {"codec": "hevc", "pixels": "yuv420p10le"},
    "loop.gif": {"codec": "gif", "pixels": "bgra", "frames": 32},
    "mpeg4.avi": {"codec": "mpeg4", "format": "avi"},
    "mpeg2.mpg": {"codec": "mpeg2video", "format": "mpeg"},
    "interlaced.mkv": {"interlaced": True},
    "two_videos.mkv": {"videos": 2},
    "cover_picture.mp4": {"covers": 1},
    "uhd.mp4": {"size": (3840, 2160), "frames": 24},
    "one_frame.mp4": {"frames": 1},
    "late_start.ts": {"format": "mpegts"},
}


@pytest.mark.parametrize("name", SHOWS)
def test_each_file_shows_what_it_is_named_for(corpus: tuple[Path, dict[str, str], float], name: str) -> None:
    seen = look(corpus[0] / name)
    wanted = PLAIN | SHOWS[name]
    assert {key: seen[key] for key in wanted} == wanted


@pytest.mark.parametrize(("name", "seconds"), [("late_start.mkv", 5), ("late_start.ts", 3600)])
def test_late_ones_start_late(corpus: tuple[Path, dict[str, str], float], name: str, seconds: float) -> None:
    assert seconds <= look(corpus[0] / name)["times"][0] < seconds + 2


def test_uneven_times_are_uneven(corpus: tuple[Path, dict[str, str], float]) -> None:
    steps = np.diff(look(corpus[0] / "uneven_times.mp4")["times"])
    assert steps.min() < 0.04 < 0.08 < steps.max()


def test_of_the_half_there_is_a_half(corpus: tuple[Path, dict[str, str], float]) -> None:
    assert 60 < look(corpus[0] / "half_missing.mp4")["frames"] < 120


def test_the_damage_is_in_the_pictures_and_not_in_the_index(
    corpus: tuple[Path, dict[str, str], float],
) -> None:
    path = corpus[0] / "damaged_midway.mp4"
    with av.open(str(path)) as file:
        assert sum(packet.size > 0 for packet in file.demux(video=0)) == 2 * FRAMES
    decoded = 0
    with av.open(str(path)) as file, pytest.raises(av.error.InvalidDataError):
        for _ in file.decode(video=0):
            decoded += 1
    assert FRAMES < decoded < 2 * FRAMES


def _opens(path: Path) -> bool:
    with av.open(str(path)) as file:
        return bool(file.streams.video)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("zero_bytes.mp4", lambda p: p.stat().st_size == 0),
        ("text.mp4", lambda p: p.read_text().startswith("This is a note")),
        ("without_index.mp4", lambda p: b"mdat" in p.read_bytes() and b"moov" not in p.read_bytes()),
        ("sound_alone.mp4", lambda p: not _opens(p)),
    ],
)
def test_the_broken_ones_are_broken(
    corpus: tuple[Path, dict[str, str], float], name: str, check: Callable[[Path], bool]
) -> None:
    folder, expected, _ = corpus
    assert expected[name] == FAILED and check(folder / name)
    if name != "sound_alone.mp4":
        with pytest.raises(av.error.FFmpegError):
            _opens(folder / name)
