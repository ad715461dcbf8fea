"""Each kind of odd video gives the same right answer in both halves."""

from __future__ import annotations

import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from curation.config import SliceConfig
from curation.imaging.codec import decode_image
from curation.video.slicer import Slicer, Span
from reprise.video.colour import convert_to_srgb
from reprise.video.errors import BadVideoError
from reprise.video.frame_rate import choose_frame_rate
from reprise.video.geometry import Orientation, orient_array
from reprise.video.open_video import open_video
from tests.videos import read_pictures, shots, write_video
from training.latents.buckets import SizeBuckets, SizeGrid
from training.latents.config import BucketsConfig
from training.latents.video import read_clip
from training.models.family import ClipLengths

RED, LIME, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def slice_file(path: Path) -> list[Span]:
    folder = path.parent / "clips"
    folder.mkdir(exist_ok=True)
    return list(Slicer(path, SliceConfig(), folder).slice_video())


def read_first(path: Path) -> NDArray[np.uint8]:
    buckets = SizeBuckets(
        BucketsConfig(area=160 * 96, frames=(17,), fps=8.0, window="start", enlarge=4.0),
        SizeGrid(16, 4),
        ClipLengths(8.0, (17,)),
    )
    return np.asarray(read_clip(path, buckets).frames[0])


def get_corners(picture: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """Colours of the corners, row by row, to the nearest pure one."""
    height, width = picture.shape[:2]
    y, x = height // 8, width // 8
    return [
        tuple(255 * int(value > 127) for value in picture[row, column])
        for row in (y, height - y)
        for column in (x, width - x)
    ]


def paint_corners(count: int) -> list[NDArray[np.uint8]]:
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[:48, :80], picture[:48, 80:], picture[48:, :80], picture[48:, 80:] = RED, LIME, BLUE, YELLOW
    return [picture] * count


@pytest.mark.parametrize(
    ("matrix", "corners"),
    [
        ((-1, 0, 0, 1), [LIME, RED, YELLOW, BLUE]),
        ((1, 0, 0, -1), [BLUE, YELLOW, RED, LIME]),
        ((-1, 0, 0, -1), [YELLOW, BLUE, LIME, RED]),
        ((0, 1, -1, 0), [BLUE, RED, YELLOW, LIME]),
        ((0, 1, 1, 0), [RED, BLUE, LIME, YELLOW]),
    ],
)
def test_mirrored_and_turned_videos_are_shown_as_players_do(
    tmp_path: Path, matrix: tuple[int, ...], corners: list[tuple[int, ...]]
) -> None:
    path = write_video(tmp_path / "a.mp4", paint_corners(60))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    (span,) = slice_file(path)
    assert get_corners(decode_image(span.samples[0].image)) == corners
    assert span.file is not None and get_corners(read_pictures(span.file)[0]) == corners
    assert get_corners(read_first(path)) == corners


def test_an_orientation_mirrors_before_it_turns() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert (orient_array(array, Orientation(1, True)) == np.rot90(array[:, ::-1])).all()


def test_a_circle_stays_a_circle_in_both_halves(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:96, :96]
    disc = (((rows - 48) ** 2 + (columns - 48) ** 2) < 30**2)[..., None] * np.uint8(255)
    picture = np.repeat(disc, 3, axis=2).astype(np.uint8)
    path = write_video(tmp_path / "a.mp4", [picture] * 60, aspect=Fraction(16, 9))
    (span,) = slice_file(path)
    for shown in (decode_image(span.samples[0].image), read_first(path)):
        bright = shown[..., 0] > 127
        width, height = (int(np.ptp(np.flatnonzero(bright.any(axis=axis)))) for axis in (0, 1))
        assert width / height == pytest.approx(16 / 9, rel=0.06)


def test_a_gap_is_a_cut_and_needs_no_work(tmp_path: Path) -> None:
    times = [n / 25 + 3600 * (n >= 75) for n in range(150)]
    path = write_video(tmp_path / "a.mkv", shots([150]), times=times)
    first, second = slice_file(path)
    assert (first.start_frame, first.end_frame, first.status) == (0, 75, "open")
    assert (second.start_frame, second.end_frame, second.status) == (75, 150, "open")
    assert first.end_s == pytest.approx(3.0, abs=0.01) and second.end_s - second.start_s < 3.1
    assert read_first(path).shape == (112, 128, 3)


def test_the_rate_is_that_of_the_frames(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    times = [n / 30 + 0.003 * random.random() for n in range(90)]
    times[1] = times[0] + 0.001
    assert choose_frame_rate([Fraction(1000)], times) == 30
    paused = [n / 30 + 60 * (n >= 45) for n in range(90)]
    assert choose_frame_rate([Fraction(13, 10)], paused) == 30
    assert choose_frame_rate([Fraction(30000, 1001)], [n * 1.001 / 30 for n in range(90)]) == Fraction(
        30000, 1001
    )


def test_the_default_stream_counts_else_the_largest(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        streams = []
        for width, height in ((64, 48), (160, 96)):
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for picture in paint_corners(60):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                out.mux(stream.encode(frame.reformat(stream.width, stream.height)))
        for stream in streams:
            out.mux(stream.encode(None))
    with av.open(str(path)) as container:
        is_default = bool(container.streams.video[0].disposition & av.stream.Disposition.default)
    with open_video(path) as source:
        assert (source.info.width, source.info.height) == ((64, 48) if is_default else (160, 96))


def test_avi_frames_are_evenly_timed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", shots([100]), options={"preset": "medium", "bf": "3"})
    (span,) = slice_file(path)
    assert span.num_frames == 100 and span.end_s == pytest.approx(4.0)
    assert np.diff([each.time_s for each in span.samples]) == pytest.approx(0.52, abs=0.05)


@pytest.mark.parametrize("transfer", ["hlg", "pq"])
def test_high_dynamic_range_is_converted(tmp_path: Path, transfer: str) -> None:
    greys = convert_to_srgb(np.repeat(np.linspace(0, 1, 11)[:, None], 3, axis=1), transfer, 9)
    assert (np.diff(greys, axis=0) >= 0).all() and np.ptp(greys, axis=1).max() < 0.01
    code = {"hlg": 0.75, "pq": 0.5807}[transfer]  # diffuse white, BT.2408 table 1
    assert convert_to_srgb(np.full((1, 3), code), transfer, 9).mean() > 0.95
    trc = {"hlg": 18, "pq": 16}[transfer]
    path = write_video(
        tmp_path / "a.mp4",
        [np.full((96, 160, 3), 120, np.uint8)] * 60,
        pixels="yuv420p10le",
        colours={"colorspace": 9, "color_range": 1, "color_trc": trc, "color_primaries": 9},
    )
    (span,) = slice_file(path)
    assert span.transfer == transfer and span.file is not None
    wanted = 255 * convert_to_srgb(np.full((1, 3), 120 / 255), transfer, 9).mean()
    assert decode_image(span.samples[0].image).mean() == pytest.approx(wanted, abs=4)
    assert read_first(path).mean() == pytest.approx(wanted, abs=4)
    with av.open(str(span.file)) as container:
        assert next(container.decode(video=0)).color_trc == 1


def test_interlaced_frames_are_made_whole(tmp_path: Path) -> None:
    fields = list(shots([120], 160, 96))
    woven = []
    for top, bottom in zip(fields[::2], fields[1::2], strict=True):
        frame = top.copy()
        frame[1::2] = bottom[1::2]
        woven.append(frame)
    path = write_video(
        tmp_path / "a.mp4",
        woven,
        options={"preset": "ultrafast", "x264-params": "tff=1:interlaced=1", "crf": "10"},
    )
    (span,) = slice_file(path)
    assert span.interlaced and span.cut == "encode" and span.num_frames == 60


def test_a_malformed_message_before_a_keyframe_loses_no_frame(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", shots([100]), gop=25)
    path = tmp_path / "sei.mp4"
    lie = bytes((6, 5, 200)) + bytes(36) + b"\x80"  # 200 bytes are stated
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            data = bytes(packet)
            changed = av.Packet(len(lie).to_bytes(4, "big") + lie + data if packet.is_keyframe else data)
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = packet.is_keyframe, stream
            out.mux(changed)
    spans = slice_file(path)
    assert [(span.status, span.num_frames) for span in spans] == [("open", 100)]
    assert read_first(path).shape == (112, 128, 3)


def test_a_small_file_with_huge_frames_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    header = b"GIF89a" + struct.pack("<HHBBB", 16_000, 16_000, 0x80, 0, 0) + bytes(3) + b"\xff\xff\xff"
    image = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    path.write_bytes(header + image * 3 + b";")
    with pytest.raises(BadVideoError, match="16000x16000 pixels are too large"):
        slice_file(path)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 30,) * 2)\n"
        "from pathlib import Path; from reprise.video.open_video import open_video\n"
        "try:\n  open_video(Path(sys.argv[1])).__enter__()\nexcept Exception as e: print(type(e).__name__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "BadVideoError"
