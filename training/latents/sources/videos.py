"""A source of plain videos with captions: a folder, a pattern or a list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reprise.lists.find_videos import find_videos, read_captions
from reprise.lists.folders import MessageCallback
from reprise.lists.video_files import VideoFile
from reprise.storage import Storage, locate_file
from training.latents.config import EncodeConfig
from training.latents.sources.source import EncodeItem, PlannedItem, hash_values


@dataclass(frozen=True)
class VideoSource:
    """A `Source`: videos with captions beside them (NAME.txt, NAME.json), or in a list.

    The files are found as in `reprise curate`.

    A list (CSV, JSONL, JSON, Parquet) has a column `path` (or video, file_name, file_path, video_path),
    relative to the list's folder, and one named `caption` (or text, prompt).
    """

    uri: str
    config: EncodeConfig = field(default_factory=EncodeConfig)

    @property
    def place(self) -> str:
        """Address of the videos."""
        return Storage.from_uri(self.uri).uri

    def plan_items(self, notify: MessageCallback | None = None) -> list[PlannedItem]:
        """List every video, also videos that cannot be encoded.

        Raises:
            RepriseError: there is no video, or the list cannot be read.
        """
        notify = notify or (lambda line: None)
        planned, known_paths = [], set()
        for file in read_captions(find_videos(self.uri, notify), notify):
            drop, message = self._find_refusal(file, file.path in known_paths)
            known_paths.add(file.path)
            # The place holds the caption, because reading caption files a second time is slow on S3.
            place = (json.dumps([file.path, file.caption or ""]), 0)
            key = hash_values(file.path, file.size, file.stamp, file.caption)
            planned.append(PlannedItem(hash_values(file.path), key, place, drop, message))
        return planned

    def load_items(self, places: Sequence[tuple[str, int]]) -> Iterator[EncodeItem]:
        """Make the items at some places. A place holds path and caption as JSON."""
        for named, _ in places:
            path, caption = json.loads(named)
            folder, name = locate_file(path)
            media = (folder, name) if folder.is_remote else Path(path)
            yield EncodeItem(hash_values(path), hash_values(path), caption, media)

    def describe_source(self) -> dict[str, Any]:
        """Return kind and address, for the manifest."""
        return {"kind": "videos", "place": self.place}

    def _find_refusal(self, file: VideoFile, is_again: bool) -> tuple[str | None, str]:
        """Find why a video is not encoded: (reason, message), or (None, path) if it is."""
        if is_again:
            return "listed twice", file.path
        if file.problem:
            reason = file.problem if file.problem in ("missing file", "not a regular file") else "unreadable"
            return reason, f"{file.path}: {file.problem}"
        if file.caption_problem:
            return "unreadable caption", f"{file.path}: {file.caption_problem}"
        if not file.caption and self.config.captions == "required":
            return "no caption", file.path
        return None, file.path
