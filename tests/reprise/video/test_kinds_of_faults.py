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
from reprise.video.decode import decode_frames
from reprise.video.errors import BadVideoError
from reprise.video.frame_rate import choose_frame_rate
from reprise.video.geometry import Orientation, orient_array
from reprise.video.open_video import open_video
from tests.videos import AV1, VP9, X264, X265, read_pictures, read_planes, shots, write_video
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
        ((1, 0, 0, 1), [RED, LIME, BLUE, YELLOW]),
        ((0, -1, 1, 0), [LIME, YELLOW, RED, BLUE]),
        ((0, -1, -1, 0), [YELLOW, LIME, BLUE, RED]),
    ],
)
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3)])
def test_mirrored_and_turned_videos_are_shown_as_players_do(
    tmp_path: Path, matrix: tuple[int, ...], corners: list[tuple[int, ...]], aspect: Fraction
) -> None:
    path = write_video(tmp_path / "a.mp4", paint_corners(60), aspect=aspect)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    (span,) = slice_file(path)
    sides = round(160 * aspect), 96
    assert (span.width, span.height) == pytest.approx(sides if a else sides[::-1], abs=1)
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


@pytest.mark.parametrize(("container", "hours"), [("mkv", 1), ("mkv", 26), ("ts", 1), ("ts", 26), ("mp4", 1)])
def test_a_gap_is_a_cut_and_needs_no_work(tmp_path: Path, container: str, hours: int) -> None:
    times = [n / 25 + 3600 * hours * (n >= 75) for n in range(150)]
    path = write_video(tmp_path / f"a.{container}", shots([150]), times=times)
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


MESSAGES = {
    "h264": bytes((6, 5, 200)) + bytes(36) + b"\x80",  # of user data: 200 bytes are stated, 36 are there
    "hevc": bytes((78, 1, 5, 200)) + bytes(36) + b"\x80",
}
DELIMITERS = {"h264": bytes((9, 0x10)), "hevc": bytes((70, 1, 0x10))}  # an access unit without a picture


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_malformed_message_before_a_keyframe_loses_no_frame(
    tmp_path: Path, codec: str, container: str
) -> None:
    spans = slice_file(write_with_units(tmp_path, codec, container, MESSAGES[codec], alone=False))
    assert [(span.status, span.num_frames) for span in spans] == [("open", 100)]
    assert read_first(tmp_path / f"changed.{container}").shape == (112, 128, 3)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_an_access_unit_without_a_picture_loses_no_frame(tmp_path: Path, codec: str) -> None:
    spans = slice_file(write_with_units(tmp_path, codec, "mkv", DELIMITERS[codec], alone=True))
    assert [(span.status, span.num_frames) for span in spans] == [("open", 100)]


def write_with_units(folder: Path, codec: str, container: str, unit: bytes, *, alone: bool) -> Path:
    """A video with a unit before each keyframe: in its packet, or in a packet of its own."""
    encoder, options = {"h264": ("libx264", X264), "hevc": ("libx265", X265)}[codec]
    plain = write_video(folder / "plain.mp4", shots([100]), gop=25, codec=encoder, options=options)
    path = folder / f"changed.{container}"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        video = source.streams.video[0]
        stream = out.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is None:
                continue
            units = [bytes(packet)]
            if packet.is_keyframe:
                extra = len(unit).to_bytes(4, "big") + unit
                units = [extra, *units] if alone and packet.dts > 0 else [extra + units[0]]
            for number, data in enumerate(units):
                changed = av.Packet(data)
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                if number < len(units) - 1:  # between this frame and the one before
                    changed.pts = changed.dts = packet.dts - 1
                changed.is_keyframe, changed.stream = packet.is_keyframe, stream
                out.mux(changed)
    return path


OPEN_GROUPS = {
    "libx264": {"preset": "medium", "bf": "3", "x264-params": "open-gop=1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=25:bframes=3"},
}


@pytest.mark.parametrize("codec", OPEN_GROUPS)
def test_the_first_frames_of_an_open_group_are_no_damage(tmp_path: Path, codec: str) -> None:
    """They refer to a frame before the keyframe, which was cut away."""
    options = OPEN_GROUPS[codec]
    whole = write_video(tmp_path / "whole.mp4", shots([200]), gop=25, codec=codec, options=options)
    path = tmp_path / "cut.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        keys = 0
        for packet in source.demux(video=0):
            keys += packet.is_keyframe
            if keys >= 3 and packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert_decoded_alike(path)
    assert {span.status for span in slice_file(path)} == {"open"}


@pytest.mark.parametrize("codec", OPEN_GROUPS)
def test_what_an_edit_list_hides_is_hidden(tmp_path: Path, codec: str) -> None:
    options = OPEN_GROUPS[codec]
    whole = write_video(tmp_path / "whole.mp4", shots([150]), gop=75, codec=codec, options=options)
    path = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        keys, shift = 0, None
        for packet in source.demux(video=0):
            if packet.dts is None or packet.pts is None:
                continue
            keys += packet.is_keyframe
            if keys < 2:
                continue
            shift = packet.pts + 10 * packet.duration if shift is None else shift  # ten frames are hidden
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            out.mux(packet)
    assert_decoded_alike(path)


def assert_decoded_alike(path: Path) -> None:
    """Frames are those of a plain decoder, bit for bit, and none counts as damaged."""
    with open_video(path) as video:
        found = [decoded.frame.to_ndarray() for decoded in decode_frames(video)]
        assert video.damage == []
    expected = read_planes(path)
    assert len(found) == len(expected) > 50 and all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("container", ["ts", "mkv"])
def test_a_file_that_breaks_off_within_a_frame_keeps_the_frames_before_it(
    tmp_path: Path, container: str
) -> None:
    path = write_video(tmp_path / f"a.{container}", shots([150]), gop=25, options={**X264, "bf": "2"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    first, *others = slice_file(path)
    assert first.status == "open" and first.num_frames > 90
    assert {span.status for span in others} <= {"rejected", "failed"}


@pytest.mark.parametrize("container", ["ts", "mkv"])
def test_a_change_of_pixel_aspect_is_a_cut(tmp_path: Path, container: str) -> None:
    options = {**X264, "x264-params": "repeat-headers=1"}
    parts = [
        write_video(tmp_path / f"{n}.ts", shots([75]), aspect=aspect, gop=25, options=options)
        for n, aspect in enumerate((Fraction(1), Fraction(4, 3)))
    ]
    spans = slice_file(join_videos(tmp_path / f"joined.{container}", parts))
    assert [(span.start_frame, span.end_frame) for span in spans] == [(0, 75), (75, 150)]
    assert [(span.width, span.height) for span in spans] == [(160, 120), (212, 120)]


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {**X264, "x264-params": "repeat-headers=1"}),
        ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:repeat-headers=1"}),
        ("libvpx-vp9", VP9),
    ],
)
def test_a_change_of_size_is_a_cut(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    sizes = ((160, 120), (320, 180))
    parts = [
        write_video(tmp_path / f"{n}.mp4", shots([75], *size), codec=codec, options=options)
        for n, size in enumerate(sizes)
    ]
    spans = slice_file(join_videos(tmp_path / "joined.mkv", parts))
    assert [(span.status, span.start_frame, span.end_frame) for span in spans] == [
        ("open", 0, 75),
        ("open", 75, 150),
    ]
    assert [(span.width, span.height) for span in spans] == list(sizes)


def join_videos(path: Path, parts: list[Path]) -> Path:
    """One stream of the packets of several, one after another, at 25 frames per second."""
    with av.open(str(path), "w") as out:
        stream = None
        before = 0
        for part in parts:
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                first = None
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    first = packet.dts if first is None else first
                    shift = round(before / 25 / packet.time_base) - first
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    out.mux(packet)
                before += 75
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("a.mpg", "mpeg2video", "yuv420p", {"bf": "2"}),
        ("a.ts", "mpeg2video", "yuv420p", {"bf": "2"}),
        ("a.avi", "mpeg4", "yuv420p", {"bf": "2"}),
        ("a.avi", "libx264", "yuv420p", {"preset": "medium", "bf": "2"}),
        ("a.avi", "mjpeg", "yuvj420p", {}),
        ("a.mov", "prores_ks", "yuv422p10le", {}),
        ("a.mkv", "ffv1", "yuv420p", {}),
        ("a.wmv", "wmv2", "yuv420p", {}),
        ("a.flv", "flv", "yuv420p", {}),
        ("a.mp4", "libvpx-vp9", "yuv420p", {"deadline": "good", "cpu-used": "5", "lag-in-frames": "25"}),
        ("a.mp4", "libsvtav1", "yuv420p10le", AV1),
        ("a.mp4", "libx264", "yuv422p10le", X264),
    ],
)
def test_every_codec_gives_the_frames_that_a_plain_decoder_gives(
    tmp_path: Path, name: str, codec: str, pixels: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / name, shots([75]), codec=codec, pixels=pixels, options=options, gop=12)
    assert_decoded_alike(path)
    with open_video(path) as video:
        assert video.info.fps == 25
        times = [decoded.time_s for decoded in decode_frames(video)]
    assert np.diff(times) == pytest.approx(0.04, abs=0.0011)
    assert [(span.status, span.num_frames) for span in slice_file(path)] == [("open", 75)]


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
