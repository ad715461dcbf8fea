"""The life of a row: it starts blank, stages fill it, and it is kept or stops with a reason."""

from __future__ import annotations

from curation.rows.columns import make_blank_record
from curation.rows.schema import ClipRow, SubjectRow, VideoRow


def make_blank_row(video: VideoRow, clip_id: str) -> ClipRow:
    """A row that holds only what its input says."""
    return make_blank_record(
        ClipRow,
        clip_id=clip_id,
        source_path=video["source_path"],
        source_key=video["source_key"],
        extra=video["extra"],
        license=video["license"],
        caption=video["caption"],
        caption_source=video["caption_source"],
    )


def make_new_subject(
    subject_id: str, *, category: str, group: str, name: str, phrase: str, count: int | None
) -> SubjectRow:
    """A candidate subject of which only the words of the caption are known."""
    return make_blank_record(
        SubjectRow,
        subject_id=subject_id,
        category=category,
        group=group,
        name=name,
        phrase=phrase,
        count=count,
    )


def stop_row(
    row: ClipRow,
    status: str,
    stage: str,
    reason: str,
    value: float | None = None,
    threshold: float | None = None,
) -> None:
    """Record where and why a row stopped, and free its payload.

    Args:
        row: changed in place.
        status: `rejected`, if it was judged; `failed`, if it could not be.
        stage: name of the stage.
        reason: the threshold that was missed, or a sentence.
        value: what was measured.
        threshold: what it was compared with.
    """
    row["status"] = status
    row["stop"] = {"stage": stage, "reason": reason, "value": value, "threshold": threshold}
    keep_needed_frames(row)


def keep_needed_frames(row: ClipRow) -> None:
    """Free the samples that no subject refers to; without subjects the middle one stays as a poster.

    The frames of rejected subjects stay, since other thresholds may keep those subjects.
    """
    used = {subject["frame_index"] for subject in row["subjects"] if subject["frame_index"] is not None}
    used |= {each["index"] for subject in row["subjects"] for each in subject["reference_frames"] or ()}
    if not used and row["frames"]:
        used = {row["frames"][len(row["frames"]) // 2]["index"]}
    row["frames"] = [frame for frame in row["frames"] if frame["index"] in used]
    for frame in row["frames"]:
        frame["motion"] = None


def is_live(row: ClipRow) -> bool:
    """Whether later stages still work on this row."""
    return row["status"] in ("open", "kept")
