"""Encode a clip again at another rate, length or size: H.264 in MP4. The clip is decoded once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import cast

from av.error import FFmpegError
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from curation.export.video_plan import VideoPlan
from curation.video.cut import ClipEncoder
from reprise.errors import InputError
from reprise.video.ahead import StalledError, run_ahead
from reprise.video.cover import compute_cover
from reprise.video.decode import DecodedFrame, decode_frames
from reprise.video.errors import BadVideoError, format_ffmpeg_error
from reprise.video.geometry import render_upright_planes
from reprise.video.open_video import open_video
from reprise.video.ticks import sample_at_ticks

_TIMEOUT_S = 120.0  # time that the decoder has for one frame
_FRAMES_AHEAD = 4


def transcode_clip(media: Path, output: Path, plan: VideoPlan, *, crf: int, preset: str) -> int:
    """Encode a clip as planned.

    Args:
        media: the file of the clip.
        output: the MP4 file to write.
        plan: rate, frames and size.
        crf: x264 quality, 0..51.
        preset: x264 preset.

    Returns:
        The number of frames written: `plan.frames`, or fewer if the file has fewer than its row states.

    Raises:
        InputError: the clip cannot be read, or holds too few frames.
    """
    try:
        written = _encode_clip(media, output, plan, crf, preset)
        if written == plan.frames:
            return written
        wanted = plan.rule.choose_length(written)
        if wanted is None:
            raise InputError(
                f"it holds {written} frames at {plan.fps:g} per second; needs {plan.rule.describe()}"
            )
        return _encode_clip(media, output, replace(plan, frames=wanted), crf, preset)
    except StalledError as error:
        raise InputError(f"its decoder gave no frame for {_TIMEOUT_S:g} s") from error
    except FFmpegError as error:
        raise InputError(f"it cannot be decoded ({format_ffmpeg_error(error)})") from error
    except (BadVideoError, ValueError) as error:
        raise InputError(str(error)) from error


def _encode_clip(media: Path, output: Path, plan: VideoPlan, crf: int, preset: str) -> int:
    fps = Fraction(plan.fps).limit_denominator(1001)
    encoder = ClipEncoder(output, plan.width, plan.height, fps, crf, preset)
    fitter = _FrameFitter(plan.width, plan.height)
    try:
        with (
            open_video(media, _TIMEOUT_S) as source,
            closing(run_ahead(decode_frames(source), _FRAMES_AHEAD, _TIMEOUT_S)) as frames,
        ):
            ticks = sample_at_ticks(((each.time_s, each) for each in frames), plan.fps)
            chosen: Iterator[tuple[int, DecodedFrame]] = islice(ticks, plan.start, plan.start + plan.frames)
            for number, (_, decoded) in enumerate(chosen):
                frame = fitter.fit_frame(decoded)
                encoder.add_frame(frame, None, float(number / fps), float(1 / fps))
        return encoder.close_file()
    except BaseException:
        encoder.remove_file()
        raise


class _FrameFitter:
    """Fits frames to one size: rotates them upright, scales them to cover the size, crops the centre."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._scaler = VideoReformatter()
        self._crop: tuple[tuple[int, int, str], Graph] | None = None
        self._last: tuple[int, VideoFrame] | None = None

    def fit_frame(self, decoded: DecodedFrame) -> VideoFrame:
        """Return the frame as 4:2:0 at this size. Repeated calls with one frame scale it only once."""
        if self._last is None or self._last[0] != decoded.index:
            shown = decoded.geometry
            (height, width), _ = compute_cover((self._height, self._width), shown.height, shown.width)
            height, width = height + height % 2, width + width % 2  # 4:2:0 needs even sides
            frame = render_upright_planes(decoded.frame, shown, width, height, self._scaler)
            self._last = decoded.index, self._crop_frame(frame)
        return self._last[1]

    def _crop_frame(self, frame: VideoFrame) -> VideoFrame:
        if (frame.width, frame.height) == (self._width, self._height):
            return frame
        shape = (frame.width, frame.height, frame.format.name)
        if self._crop is None or self._crop[0] != shape:
            graph = Graph()
            source = graph.add_buffer(
                width=shape[0], height=shape[1], format=frame.format, time_base=Fraction(1, 90_000)
            )
            crop = graph.add("crop", f"{self._width}:{self._height}")
            sink = graph.add("buffersink")
            source.link_to(crop)
            crop.link_to(sink)
            graph.configure()
            self._crop = shape, graph
        self._crop[1].push(frame)
        return cast(VideoFrame, self._crop[1].pull())
