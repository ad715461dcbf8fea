"""What a row knows of its subjects: which are kept, where they are in a frame, and their references."""

from __future__ import annotations

from curation.rows.schema import ClipRow, EncodedMask, SubjectRow


def list_kept_subjects(row: ClipRow) -> list[SubjectRow]:
    """The subjects that a verdict keeps and that have a mask."""
    return [
        subject
        for subject in row["subjects"]
        if subject["verdict"] is not None and subject["verdict"]["kept"] and subject["mask"] is not None
    ]


def find_mask(subject: SubjectRow, index: int) -> EncodedMask | None:
    """A subject's mask in the frame with a source frame number; None: not seen there, or not known."""
    if subject["frame_index"] == index and subject["mask"] is not None:
        return subject["mask"]
    return next((each["mask"] for each in subject["track"] or () if each["index"] == index), None)


def find_box(subject: SubjectRow, index: int) -> list[float] | None:
    """A subject's box in the frame with a source frame number, px; None: not seen there, or not known."""
    if subject["frame_index"] == index:
        return subject["box"]
    return next((each["box"] for each in subject["track"] or () if each["index"] == index), None)


def is_location_known(subject: SubjectRow, index: int) -> bool:
    """Whether it is known where a subject is in a frame, or that it is not there."""
    return subject["frame_index"] == index or any(each["index"] == index for each in subject["track"] or ())


def remove_references(subject: SubjectRow, variant: str) -> None:
    """Remove the references of one variant, so that a new run of its stage leaves no old ones."""
    subject["references"] = [each for each in subject["references"] if each["variant"] != variant]
