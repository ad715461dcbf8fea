"""The sample that a target writes: a clip with its video file, its references and its row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)


@dataclass(frozen=True)
class SamplePicture:
    """A reference, encoded for the target."""

    data: bytes
    extension: str  # jpg, png or webp
    width: int
    height: int
    subject: int  # index of its subject in `Sample.subjects`
    category: str
    phrase: str
    variant: str
    reference_id: str


@dataclass(frozen=True)
class SampleVideo:
    """The video file of a sample: the clip itself, or a temporary file."""

    path: Path
    as_is: bool  # the clip's own file
    frames: int
    fps: float  # frames per second
    width: int  # px
    height: int  # px


@dataclass(frozen=True)
class Sample:
    """A clip with everything that a target needs to write it."""

    key: str  # file name without an extension; unique in the export
    number: int  # 0, 1, ... within its split
    split: str  # train or validation
    caption: str  # with tags if the settings have a tag
    video: SampleVideo
    pictures: tuple[SamplePicture, ...]  # in the order of `subjects`
    subjects: tuple[dict[str, Any], ...]  # the chosen subjects of the row, in the order of the caption
    best_frame: bytes | None  # PNG of the frame that shows the first subject best; None: not wanted
    row: dict[str, Any]  # the whole row, see `curation/rows/schema.py`
