"""Slice videos into clips. It is the only stage that makes rows."""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from av.error import FFmpegError

from curation.config import CurationConfig
from curation.rows.ids import hash_video, make_clip_id, make_clip_path, make_stopped_video_id
from curation.rows.lifecycle import make_blank_row, stop_row
from curation.rows.schema import ClipRow, VideoRow
from curation.rows.stage_names import SLICE
from curation.rows.verdicts import DECODER_STALLED
from curation.video.sampling import MOTION_SCALE
from curation.video.slicer import Slicer, Span
from reprise.digest import compute_digest, hash_stream
from reprise.errors import RepriseError
from reprise.storage import Storage, fetch_file
from reprise.video.ahead import StalledError
from reprise.video.errors import BadVideoError, format_ffmpeg_error

log = logging.getLogger(__name__)


class Slice:
    """Cuts a video's shots into clips of `slice.min_length`..`slice.max_length` seconds below `clips/`.

    It yields each row as its clip is cut, so that memory does not grow with the video. `clip_count` of a
    video's last row is the number of its rows; in the others it is 0.
    """

    name = SLICE

    def __init__(self, config: CurationConfig, dataset: Storage, config_hash: str) -> None:
        self._config, self._dataset, self._config_hash = config.slice, dataset, config_hash
        self._slicing = compute_digest(config.slice.model_dump(mode="json", exclude={"timeout"}))

    def __call__(self, video: VideoRow) -> Iterator[ClipRow]:
        """Yield the rows of a video without those of `skip_clip_ids`; if it has none, a row with the reason.

        If the last row is skipped, no yielded row has a `clip_count`.

        Raises:
            RepriseError: a clip cannot be written, to the dataset or to this machine's temporary folder.
        """
        held: ClipRow | None = None
        count = 0
        for row in self._iter_rows(video):
            if held is not None:
                yield held
            if row is not None:
                row["clip_index"] = count
            held, count = row, count + 1
        if held is not None:
            held["clip_count"] = count
            yield held

    def _iter_rows(self, video: VideoRow) -> Iterator[ClipRow | None]:
        """Yield all rows of a video in time order, None for those that an earlier run finished."""
        video_id: str | None = None
        slicer: Slicer | None = None
        with ExitStack() as stack:
            folder = Path(stack.enter_context(_make_temporary_folder()))
            spans: Iterator[Span] = iter(())
            while True:
                # Read errors fail this video. Write errors of the dataset fail the run.
                try:
                    if slicer is None:
                        if video["problem"]:
                            raise BadVideoError(video["problem"])
                        path = stack.enter_context(fetch_file(video["source_path"]))
                        video_id = hash_video(path)
                        slicer = Slicer(
                            path, self._config, folder, _parse_first_frames(video["skip_clip_ids"])
                        )
                        spans = slicer.slice_video()
                    span = next(spans, None)
                except Exception as error:
                    _refuse_full_disk(error)
                    row = self._build_stopped_row(video, video_id, _describe_error(error, video))
                    if isinstance(error, StalledError) and row["stop"]:
                        row["stop"]["threshold"] = self._config.timeout
                    yield None if row["clip_id"] in video["skip_clip_ids"] else row
                    return
                if span is None:
                    return
                yield None if span.status == "done" else self._build_row(video, video_id or "", slicer, span)

    def _build_row(self, video: VideoRow, video_id: str, slicer: Slicer, span: Span) -> ClipRow:
        info = slicer.info
        assert info is not None
        row = make_blank_row(video, make_clip_id(video_id, span.start_frame, span.end_frame, self._slicing))
        row["video_id"], row["config_hash"] = video_id, self._config_hash
        row["start_frame"], row["end_frame"] = span.start_frame, span.end_frame
        row["start_s"], row["end_s"] = span.start_s, span.end_s
        row["num_frames"], row["fps"] = span.num_frames, float(info.fps)
        row["width"], row["height"] = span.width, span.height
        row["source_codec"] = info.codec
        row["source_transfer"], row["source_interlaced"] = span.transfer, span.interlaced
        if span.file is None:
            stop_row(row, span.status, SLICE, span.reason or "", span.value, span.threshold)
            return row
        target = make_clip_path(video_id, row["clip_id"])
        with span.file.open("rb") as stream:
            row["clip_bytes"], row["clip_blake2b"] = span.file.stat().st_size, hash_stream(stream)
        self._dataset.put_file(span.file, target)
        row["clip_path"] = target
        span.file.unlink(missing_ok=True)
        row["cut"] = span.cut
        row["motion"], row["camera_motion"] = span.motion, span.camera_motion
        row["motion_scale"] = MOTION_SCALE
        row["frames"] = [
            {"index": each.index, "time_s": each.time_s, "image": each.image, "motion": each.motion}
            for each in span.samples
        ]
        return row

    def _build_stopped_row(self, video: VideoRow, video_id: str | None, reason: str) -> ClipRow:
        row = make_blank_row(video, make_stopped_video_id(video_id, video["source_key"]))
        row["video_id"], row["config_hash"] = video_id, self._config_hash
        duplicate = bool(video["problem"]) and reason.startswith("duplicate")
        stop_row(row, "rejected" if duplicate else "failed", SLICE, reason)
        return row


def _make_temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="reprise-", ignore_cleanup_errors=True)
    except OSError as error:
        raise RepriseError(f"cannot write to the temporary folder ({error.strerror}): set TMPDIR") from error


def _parse_first_frames(clip_ids: Iterable[str]) -> frozenset[int]:
    """Return the first frames in these clip ids. The id of a video without clips has no first frame."""
    parts = [each.split("-") for each in clip_ids]
    return frozenset(int(each[1]) for each in parts if len(each) == 4)


def _refuse_full_disk(error: Exception) -> None:
    """Turn an error of a full disk into one that ends the run, because every further video would fail.

    Raises:
        RepriseError: the disk is full.
    """
    cause = error.__cause__ if isinstance(error, RepriseError) else error
    if getattr(cause, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
        return
    if isinstance(error, RepriseError):
        raise error
    where = tempfile.gettempdir()
    raise RepriseError(f"no space left on {where}: free some, or set TMPDIR, and run again") from error


def _describe_error(error: Exception, video: VideoRow) -> str:
    """Describe an error in one line for the row of a video."""
    if isinstance(error, BadVideoError | RepriseError):
        return str(error)
    if isinstance(error, StalledError):
        return DECODER_STALLED
    if isinstance(error, FFmpegError):
        return f"slicing failed ({format_ffmpeg_error(error)})"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    # FFmpeg and OpenCV raise many kinds of errors; each fails only this video.
    log.warning("%s: slicing failed: %s", video["source_path"], error, exc_info=error)
    return f"slicing failed ({type(error).__name__}: {error})".split("\n")[0][:300]
