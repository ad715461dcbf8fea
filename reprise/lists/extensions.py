"""Which files are videos and which are lists, by the ends of their names."""

from __future__ import annotations

import posixpath

VIDEO_EXTENSIONS = frozenset(
    "mp4 m4v mov mkv webm avi gif mpg mpeg ts m2ts mts flv wmv ogv 3gp y4m".split()  # noqa: SIM905
)
LIST_EXTENSIONS = frozenset({"csv", "jsonl", "json", "parquet"})


def get_extension(path: str) -> str:
    """Return what follows the last dot of a name, in lower case; "" where there is none."""
    return posixpath.splitext(path)[1].lower().lstrip(".")


def format_extensions() -> str:
    """All extensions of videos, for messages."""
    return ", ".join(sorted(VIDEO_EXTENSIONS))
