"""Write the files of a unit. Each file appears complete or not at all; clips are hard-linked if possible."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from curation.export.sample import Sample, SampleVideo
from reprise.storage import Storage


@dataclass(frozen=True)
class UnitWriter:
    """Writes the files of one unit.

    Attributes:
        output: the folder of the export.
        split: the split of all its samples.
        number: the number of the unit within its split, from 0.
        link: whether clips that are exported unchanged are hard-linked.
        files: the paths of the written files.
    """

    output: Storage
    split: str
    number: int
    link: bool = True
    files: list[str] = field(default_factory=list)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write or replace a file."""
        self.files.append(path)
        self.output.write_bytes(path, data)

    def write_text(self, path: str, text: str) -> None:
        """Write or replace a UTF-8 text file."""
        self.write_bytes(path, text.encode())

    def write_json(self, path: str, value: Any) -> None:
        """Write or replace a JSON file."""
        self.write_text(path, json.dumps(value, ensure_ascii=False) + "\n")

    def put_video(self, path: str, video: SampleVideo) -> None:
        """Write a sample's video: by a hard link if settings and file system allow it, else by a copy."""
        self.files.append(path)
        local = self.output.get_local_path(path)
        if local is not None and (self.link or not video.as_is):
            with contextlib.suppress(OSError):  # another disk, or a file system without links: copy
                _link_file(video.path, local)
                return
        self.output.put_file(video.path, path)

    def put_sample(self, sample: Sample, video: str, pictures: str) -> tuple[str, list[str]]:
        """Write the video and the references of a sample.

        Args:
            sample: what to write.
            video: path of the video.
            pictures: path of a reference, with `{number}` from 1 and `{extension}`.

        Returns:
            The path of the video, and the paths of the references in their order.
        """
        self.put_video(video, sample.video)
        paths = []
        for number, picture in enumerate(sample.pictures, start=1):
            path = pictures.format(number=number, extension=picture.extension)
            self.write_bytes(path, picture.data)
            paths.append(path)
        return video, paths

    @contextlib.contextmanager
    def open_file(self, path: str) -> Iterator[BinaryIO]:
        """Open a file for streaming writes; it appears when the `with` block ends."""
        self.files.append(path)
        with self.output.open_output(path) as stream:
            yield stream


def _link_file(source: Path, target: Path) -> None:
    """Hard-link a file under a second name and replace an existing file of that name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
    partial.unlink(missing_ok=True)
    os.link(source.resolve(), partial)
    partial.replace(target)
    partial.unlink(missing_ok=True)  # a rename between two links to one file keeps both
