"""A clip depends on its video and the config: never on which other clips an earlier run finished."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.config import SliceConfig
from curation.video.slicer import Slicer, Span
from tests.videos import shots, write_video

CONFIG = SliceConfig(min_length=0.8, max_length=2.5)


def make_clips(
    video: Path, folder: Path, done: frozenset[int] = frozenset()
) -> dict[int, tuple[object, ...]]:
    """First frame -> everything that is known of a clip, and its bytes; of those that are made."""
    folder.mkdir()
    spans = Slicer(video, CONFIG, folder, done).slice_video()
    return {span.start_frame: describe_span(span) for span in spans if span.status != "done"}


def describe_span(span: Span) -> tuple[object, ...]:
    samples = [(each.index, each.time_s, each.image["bytes"], each.residual) for each in span.samples]
    data = span.file.read_bytes() if span.file else b""
    return (
        *(span.end_frame, span.start_s, span.end_s, span.width, span.height, span.cut),
        *(span.status, span.reason, span.value, samples, data),
    )


@settings(max_examples=12, deadline=None)
@example(lengths=[75, 75, 75], gop=75, b_frames=3, open_gop=0, container="mp4", cut_scenes=0, chosen=2)
@example(lengths=[60, 10, 70, 50], gop=25, b_frames=3, open_gop=1, container="mkv", cut_scenes=40, chosen=2)
@example(lengths=[130, 40], gop=250, b_frames=2, open_gop=0, container="mp4", cut_scenes=40, chosen=1)
@example(lengths=[50, 50], gop=5, b_frames=3, open_gop=1, container="avi", cut_scenes=0, chosen=0)
@given(
    lengths=st.lists(st.integers(8, 90), min_size=2, max_size=4),
    gop=st.sampled_from([5, 25, 50, 250]),
    b_frames=st.integers(0, 3),
    open_gop=st.integers(0, 1),
    container=st.sampled_from(["mp4", "mkv", "ts", "avi", "flv"]),
    cut_scenes=st.sampled_from([0, 40]),
    chosen=st.integers(0, 7),
)
def test_each_clip_alone_is_the_clip_of_a_whole_run_byte_for_byte(
    lengths: list[int], gop: int, b_frames: int, open_gop: int, container: str, cut_scenes: int, chosen: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = f"open-gop={open_gop}:scenecut={cut_scenes}"
        options = {"preset": "veryfast", "bf": str(b_frames), "x264-params": params}
        video = write_video(folder / f"v.{container}", shots(lengths, 64, 48), options=options, gop=gop)
        whole = make_clips(video, folder / "whole")
        starts = sorted(whole)
        start = starts[chosen % len(starts)]
        others = [
            frozenset(starts) - {start},  # it is the only one that is left to do
            frozenset(each for each in starts if each < start),  # those before it were finished
        ]
        for number, done in enumerate(others):
            made = make_clips(video, folder / str(number), done)
            assert made == {each: whole[each] for each in starts if each not in done}
