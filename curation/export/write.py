"""Write one unit of an export: read its rows, make its videos and pictures, build a record per clip."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.export.captions import tag_caption
from curation.export.config import ExportConfig
from curation.export.frames import check_clip_opens, read_frame
from curation.export.pictures import convert_picture
from curation.export.plan import ExportUnit, LeftOutClip, PlannedClip
from curation.export.sample import Sample, SamplePicture, SampleVideo
from curation.export.target import ExportTarget, Record
from curation.export.transcode import transcode_clip
from curation.export.unit_writer import UnitWriter
from curation.rows.schema import CLIPS, EncodedImage
from curation.rows.tables import extract_rows
from reprise.errors import InputError
from reprise.parquet_rows import read_table_row_groups
from reprise.storage import Storage, fetch_file


@dataclass(frozen=True)
class ExportJob:
    """The inputs that all units of an export share. They are sent to workers."""

    dataset: Storage
    output: Storage
    target: ExportTarget
    config: ExportConfig


@dataclass(frozen=True)
class UnitResult:
    """The records, left-out clips and files of a written unit."""

    records: tuple[Record, ...]
    left_out: tuple[LeftOutClip, ...]
    files: tuple[str, ...]


def write_unit(job: ExportJob, unit: ExportUnit) -> UnitResult:
    """Write the clips of a unit. A clip that cannot be read is left out; a full disk ends the export.

    Raises:
        StorageError: the output cannot be written, or a shard cannot be read.
    """
    left_out: list[LeftOutClip] = []
    writer = UnitWriter(job.output, unit.split, unit.number, job.config.video.link)
    samples = _make_samples(job, unit, left_out)
    records = tuple(job.target.write_samples(samples, writer))
    return UnitResult(records, tuple(left_out), tuple(writer.files))


def _make_samples(job: ExportJob, unit: ExportUnit, left_out: list[LeftOutClip]) -> Iterator[Sample]:
    """Yield the samples one by one. The files of a sample are deleted when the next one starts."""
    number = unit.first
    for clip, row in _read_rows(job.dataset, unit):
        with tempfile.TemporaryDirectory(prefix="reprise-export-") as folder:
            try:
                with _open_clip(job.dataset, row["clip_path"]) as media:
                    sample = _make_sample(job, unit.split, number, clip, row, media, Path(folder))
                    yield sample
            except _LeftOutError as error:
                left_out.append(LeftOutClip(clip.clip_id, error.reason, str(error)))
                continue
        number += 1


class _LeftOutError(Exception):
    """A clip cannot be exported."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def _open_clip(dataset: Storage, path: str) -> Iterator[Path]:
    """Open the clip as a local file.

    Raises:
        _LeftOutError: the file is missing, empty, or cannot be read.
    """
    found = dataset.stat_file(path)
    if found.size < 0:
        raise _LeftOutError(
            "clip is missing", f"{dataset.join_path(path)}: {found.problem or 'missing file'}"
        )
    if found.size == 0:
        raise _LeftOutError("clip is damaged", f"{dataset.join_path(path)} is empty")
    with fetch_file(dataset.join_path(path)) as local:
        yield local


def _make_sample(
    job: ExportJob, split: str, number: int, clip: PlannedClip, row: dict[str, Any], media: Path, folder: Path
) -> Sample:
    subjects = {subject["subject_id"]: subject for subject in row["subjects"]}
    chosen = [subjects[name] for name in clip.subject_ids]
    pictures = tuple(_make_pictures(job, clip, chosen))
    phrases = [picture.phrase for picture in pictures]
    best_frame = None
    if job.target.needs.best_frame and chosen:
        best_frame = _read_best_frame(row, chosen[0], media)
    return Sample(
        key=clip.clip_id,
        number=number,
        split=split,
        caption=tag_caption(row["caption"] or "", phrases, job.config.captions.tag),
        video=_make_video(job, clip, row, media, folder),
        pictures=pictures,
        subjects=tuple(chosen),
        best_frame=best_frame,
        row=row,
    )


def _make_video(
    job: ExportJob, clip: PlannedClip, row: dict[str, Any], media: Path, folder: Path
) -> SampleVideo:
    plan, config = clip.video, job.config.video
    if plan.as_is:
        try:
            check_clip_opens(media)
        except InputError as error:
            raise _LeftOutError("clip is damaged", f"{row['clip_path']}: {error}") from error
        return SampleVideo(media, True, plan.frames, plan.fps, plan.width, plan.height)
    path = folder / "clip.mp4"
    try:
        frames = transcode_clip(media, path, plan, crf=config.crf, preset=config.preset)
    except InputError as error:
        raise _LeftOutError("clip is damaged", f"{row['clip_path']}: {error}") from error
    return SampleVideo(path, False, frames, plan.fps, plan.width, plan.height)


def _read_best_frame(row: dict[str, Any], subject: dict[str, Any], media: Path) -> bytes:
    try:
        return read_frame(media, (subject["frame_index"] or 0) - (row["start_frame"] or 0))
    except InputError as error:
        raise _LeftOutError("clip is damaged", f"{row['clip_path']}: {error}") from error


def _make_pictures(
    job: ExportJob, clip: PlannedClip, subjects: list[dict[str, Any]]
) -> Iterator[SamplePicture]:
    needs, config = job.target.needs.references, job.config.references
    format, background = config.format or needs.format, config.background or needs.background
    for drawn in clip.references:
        place = next(n for n, subject in enumerate(subjects) if subject["subject_id"] == drawn.subject_id)
        subject = subjects[place]
        reference = next(each for each in subject["references"] if each["reference_id"] == drawn.reference_id)
        image: EncodedImage = reference["image"]
        try:
            data, extension = convert_picture(image, format, background)
        except ValueError as error:
            raise _LeftOutError("reference is damaged", f"{drawn.reference_id}: {error}") from error
        yield SamplePicture(
            data,
            extension,
            reference["width"],
            reference["height"],
            place,
            subject["category"],
            subject["phrase"],
            reference["variant"],
            reference["reference_id"],
        )


def _read_rows(dataset: Storage, unit: ExportUnit) -> Iterator[tuple[PlannedClip, dict[str, Any]]]:
    """Yield each planned clip with its complete row."""
    for shard in dict.fromkeys(clip.shard for clip in unit.clips):
        clips = {clip.row: clip for clip in unit.clips if clip.shard == shard}
        for numbers, table in read_table_row_groups(dataset, shard, sorted(clips)):
            for number, row in zip(numbers, extract_rows(table, CLIPS), strict=True):
                yield clips[number], row
