"""Read pictures from rows and write them to rows: stored frames, cut-outs of subjects, references."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, decode_image, decode_mask, encode_image
from curation.imaging.cutout import RGBA, make_cutout
from curation.rows.ids import make_reference_id
from curation.rows.schema import ClipRow, Reference, SubjectRow


def get_frame_image(row: ClipRow, index: int | None) -> RGB:
    """Decode the stored frame with a source frame number: (H, W, 3) RGB.

    Raises:
        ValueError: the frame was freed, or its bytes are not a picture.
    """
    for frame in row["frames"]:
        if frame["index"] == index:
            return decode_image(frame["image"])
    raise ValueError(f"frame {index} of {row['clip_id']} was freed")


def make_subject_cutout(row: ClipRow, subject: SubjectRow, padding: float) -> tuple[RGB, RGBA]:
    """Cut a kept subject out of its stored frame: (crop, the same crop with a transparent background)."""
    assert subject["mask"] is not None
    return make_cutout(get_frame_image(row, subject["frame_index"]), decode_mask(subject["mask"]), padding)


def add_reference(
    subject: SubjectRow,
    variant: str,
    picture: NDArray[np.uint8],
    *,
    model: str,
    revision: str,
    sha256: str | None = None,
    frame_index: int | None = None,
    ordinal: int = 0,
    prompt: str | None = None,
    seed: int | None = None,
    donor_clip_id: str | None = None,
    donor_frame_index: int | None = None,
    identity: float | None = None,
    face_identity: float | None = None,
) -> None:
    """Encode a picture and add it as a reference; one with the same variant and ordinal is replaced.

    The reference is kept until `curation.rows.verdicts.decide_references` compares it with thresholds.
    `subject` is changed in place. `picture` is (H, W, 3) RGB or (H, W, 4) RGBA. `ordinal` counts the
    references of a variant from 0. All other arguments are columns of `curation.rows.schema.Reference`.
    """
    made: Reference = {
        "reference_id": make_reference_id(subject["subject_id"], variant, ordinal),
        "variant": variant,
        "image": encode_image(picture),
        "width": int(picture.shape[1]),
        "height": int(picture.shape[0]),
        "model": model,
        "revision": revision,
        "sha256": sha256,
        "frame_index": frame_index,
        "prompt": prompt,
        "seed": seed,
        "donor_clip_id": donor_clip_id,
        "donor_frame_index": donor_frame_index,
        "identity": identity,
        "face_identity": face_identity,
        "kept": True,
        "reason": None,
    }
    others = [each for each in subject["references"] if each["reference_id"] != made["reference_id"]]
    subject["references"] = sorted([*others, made], key=lambda each: each["reference_id"])
