"""Videos -> clips: the one stage that makes rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from curation.config import CurationConfig
from curation.ids import clip_id, digest, stopped_video_id, video_id
from curation.schema import ClipRow, VideoRow
from curation.stages.base import log, stop
from curation.storage import Storage, fetch
from curation.video.slicer import MOTION_SCALE, Slicer, Span
from curation.video.source import BadVideo

NAME = "slice"


class Slice:
    """Cut a video's shots into clips of `slice.min_length`..`slice.max_length` seconds below `clips/`.

    Yields one row per clip as it is cut, so that memory does not grow with the video. The last row of a
    video says in `clip_count` how many there were; in the others it is 0.
    """

    name = NAME

    def __init__(self, config: CurationConfig, dataset: Storage, config_hash: str) -> None:
        self._config, self._dataset, self._config_hash = config.slice, dataset, config_hash
        self._slicing = digest(config.slice.model_dump(mode="json"))

    def __call__(self, video: VideoRow) -> Iterator[ClipRow]:
        """Rows of one video; a video that gives no clip gives one row that says why."""
        held: ClipRow | None = None
        count = 0
        for row in self._rows(video):
            count += 1
            if row is None:  # an earlier run has it
                continue
            if held is not None:
                yield held
            row["clip_index"] = count - 1
            held = row
        if held is not None:
            held["clip_count"] = count
            yield held

    def _rows(self, video: VideoRow) -> Iterator[ClipRow | None]:
        identity: str | None = None
        made = False
        try:
            if video["problem"]:
                raise BadVideo(video["problem"])
            with fetch(video["source_path"]) as path, tempfile.TemporaryDirectory(prefix="reprise-") as folder:
                identity = video_id(path)
                done = frozenset(int(each.split("-")[1]) for each in video["skip_clip_ids"] if _is_clip(each))
                slicer = Slicer(path, self._config, Path(folder), done)
                for span in slicer.run():
                    made = True
                    yield None if span.status == "done" else self._row(video, identity, slicer, span)
        except (BadVideo, OSError) as error:
            words = str(error) if isinstance(error, BadVideo) else f"cannot be read ({error.strerror or error})"
            yield self._stopped(video, identity, words)
            made = True
        except Exception as error:
            # FFmpeg raises many kinds; whatever it is must cost this video only.
            log.warning("%s: slicing failed: %s", video["source_path"], error, exc_info=True)
            yield self._stopped(video, identity, f"{type(error).__name__}: {error}".split("\n")[0][:300])
            made = True
        if not made:
            yield self._stopped(video, identity, "no frame could be decoded")

    def _row(self, video: VideoRow, identity: str, slicer: Slicer, span: Span) -> ClipRow:
        info = slicer.info
        assert info is not None
        row = blank_row(video, clip_id(identity, span.start_frame, span.end_frame, self._slicing))
        row.update(
            video_id=identity,
            start_frame=span.start_frame,
            end_frame=span.end_frame,
            start_s=span.start_s,
            end_s=span.end_s,
            num_frames=span.num_frames,
            fps=float(info.fps),
            width=slicer.width,
            height=slicer.height,
            source_codec=info.codec,
            config_hash=self._config_hash,
        )
        if span.file is None:
            stop(row, span.status, NAME, span.reason or "", span.value, span.threshold)
            return row
        row["clip_path"] = f"clips/{identity[:2]}/{row['clip_id']}.mp4"
        self._dataset.put_file(span.file, row["clip_path"])
        span.file.unlink(missing_ok=True)
        row.update(
            cut=span.cut,
            motion=span.motion,
            camera_motion=span.camera_motion,
            motion_scale=MOTION_SCALE,
            frames=[
                {"index": each.index, "time_s": each.time_s, "image": each.image, "motion": each.motion}
                for each in span.samples
            ],
        )
        return row

    def _stopped(self, video: VideoRow, identity: str | None, reason: str) -> ClipRow:
        row = blank_row(video, stopped_video_id(identity, video["source_path"]))
        row["video_id"], row["config_hash"] = identity, self._config_hash
        duplicate = bool(video["problem"]) and reason.startswith("duplicate")
        stop(row, "rejected" if duplicate else "failed", NAME, reason)
        return row


def _is_clip(identity: str) -> bool:
    parts = identity.split("-")
    return len(parts) == 4 and parts[1].isdigit()


def blank_row(video: VideoRow, identity: str) -> ClipRow:
    """A row that knows only where it comes from."""
    return {
        "clip_id": identity,
        "video_id": None,
        "source_path": video["source_path"],
        "source_key": video["source_key"],
        "extra": video["extra"],
        "license": video["license"],
        "clip_path": None,
        "clip_index": 0,
        "clip_count": 0,
        "start_frame": None,
        "end_frame": None,
        "start_s": None,
        "end_s": None,
        "num_frames": None,
        "fps": None,
        "width": None,
        "height": None,
        "cut": None,
        "source_codec": None,
        "motion": None,
        "camera_motion": None,
        "motion_scale": None,
        "caption": video["caption"],
        "caption_source": video["caption_source"],
        "status": "open",
        "stop": None,
        "frames": [],
        "subjects": [],
        "config_hash": "",
        "payload_bytes": 0,
    }
