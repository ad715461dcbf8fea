"""Rows that a run itself writes: for videos whose worker died, and for copies of other videos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from curation.dataset.row_index import RowIndex
from curation.rows.ids import make_stopped_video_id
from curation.rows.lifecycle import make_blank_row, stop_row
from curation.rows.schema import ClipRow, VideoRow
from curation.rows.stage_names import SLICE
from curation.rows.verdicts import WORKER_DIED


def build_died_row(video: VideoRow, entries: Iterable[RowIndex], config_hash: str) -> ClipRow:
    """Build the row of a video whose worker died every time. Its finished rows, among `entries`, stay."""
    mine = sum(entry.source_key == video["source_key"] for entry in entries)
    row = _build_video_row(video, config_hash, clip_index=mine)
    stop_row(row, "failed", SLICE, WORKER_DIED)
    return row


def build_copy_row(video: VideoRow, original: str, config_hash: str) -> ClipRow:
    """Build the row of a video that has the content of another one, which is at the path `original`."""
    row = _build_video_row(video, config_hash, clip_index=0)
    stop_row(row, "rejected", SLICE, f"duplicate of {original}")
    return row


def find_copies(entries: Sequence[RowIndex], listed: Set[str]) -> dict[str, str]:
    """Find the videos whose clips another video has already.

    Of the videos with one content, the original is one that is not listed any more, since its rows could not
    be made again; else the first one in the dataset.

    Args:
        entries: The rows of the dataset, in its order.
        listed: Source keys of the videos of this run.

    Returns:
        Source key of the copy to path of the original.
    """
    owners: dict[str, str] = {}
    copies: dict[str, str] = {}
    for entry in sorted(entries, key=lambda each: each.source_key in listed):
        owner = owners.setdefault(entry.clip_id, entry.source_path)
        if owner != entry.source_path:
            copies[entry.source_key] = owner
    return copies


def _build_video_row(video: VideoRow, config_hash: str, clip_index: int) -> ClipRow:
    row = make_blank_row(video, make_stopped_video_id(None, video["source_key"]))
    row["clip_index"], row["clip_count"] = clip_index, clip_index + 1
    row["config_hash"] = config_hash
    return row
