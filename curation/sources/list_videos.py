"""What comes in: a folder, a pattern, a file or a list -> one row per video, before any is opened.

Nothing is left out silently. A video that cannot be used, because it is missing, unreadable or there twice,
is a row that says so in `problem`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from curation.rows.schema import VideoRow
from curation.sources.duplicates import mark_duplicates
from reprise.lists.find_videos import find_videos, read_captions
from reprise.lists.folders import MessageCallback
from reprise.lists.video_files import VideoFile


def list_videos(source: str, *, on_message: MessageCallback | None = None) -> list[VideoRow]:
    """List everything that a source names as rows of `VIDEOS`, sorted by path.

    A list may hold a column `path` (relative to the list's folder) and optionally `caption` and `license`;
    what else it holds is carried along as JSON in `extra`. A caption is the list's; else the text of
    `NAME.txt` beside `NAME.mp4`; else that of `NAME.json` there. Of equal files the first in order of path
    stays, the others are rows with the problem `duplicate of PATH`.

    Args:
        source: a folder (with all below it), a pattern (`clips/**/*.mp4`), one video file, or a list: CSV,
            JSONL, JSON or Parquet; local or on S3.
        on_message: is called with lines for people: what was found and what was ignored.

    Raises:
        RepriseError: no such source, no video in it, or a list that cannot be read as one.
    """
    notify = on_message or (lambda line: None)
    found = sorted(find_videos(source, notify), key=lambda each: each.path)
    files = mark_duplicates(found, notify)
    return _build_rows(read_captions(files, notify))


def summarize_videos(rows: Iterable[VideoRow]) -> str:
    """One line for people: how many videos, how large, how many captions, and what is wrong with the rest."""
    listed = list(rows)
    size = sum(row["size"] for row in listed if not row["problem"])
    captions = sum(row["caption"] is not None for row in listed)
    count = f"{len(listed):,} video{'' if len(listed) == 1 else 's'}"
    line = f"{count}, {_format_bytes(size)}, {captions:,} with a caption"
    problems: Counter[str] = Counter(_name_problem(row["problem"]) for row in listed if row["problem"])
    if problems:
        reasons = ", ".join(f"{number:,} {problem}" for problem, number in problems.most_common(4))
        if len(problems) > 4:
            reasons += " and others"
        line += f"; {problems.total():,} cannot be used: {reasons}"
    return " ".join(line.split())


def _name_problem(problem: str) -> str:
    """A problem without the names in it, to be counted."""
    if problem.startswith("duplicate of "):
        return "duplicate"
    return "caption file that cannot be read" if problem.startswith("its caption file ") else problem


def _build_rows(files: Sequence[VideoFile]) -> list[VideoRow]:
    rows = []
    times: Counter[str] = Counter()
    for each in files:
        key = f"{each.path}|{each.size}|{each.stamp}"
        times[key] += 1
        if times[key] > 1:
            # The same path twice: two rows, and "already done" must tell them apart.
            key += f"|{times[key]}"
        rows.append(
            VideoRow(
                source_path=each.path,
                source_key=key,
                size=each.size,
                caption=each.caption,
                caption_source=each.caption_source,
                license=each.license,
                extra=each.extra,
                problem=each.problem or each.caption_problem,
                skip_clip_ids=[],
            )
        )
    return rows


def _format_bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
