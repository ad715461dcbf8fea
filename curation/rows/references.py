"""Reference pictures of a subject: cut out, described, put into its row."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import (
    RGB,
    BoolMask,
    decode_image,
    decode_mask,
    encode_image,
    get_mask_box,
    pad_box,
)
from curation.rows.ids import make_reference_id
from curation.rows.schema import ClipRow, EncodedMask, Reference, SubjectRow

RGBA = NDArray[np.uint8]


def list_kept_subjects(row: ClipRow) -> list[SubjectRow]:
    """The subjects that passed, whose mask is there."""
    return [
        subject
        for subject in row["subjects"]
        if subject["verdict"] is not None and subject["verdict"]["kept"] and subject["mask"] is not None
    ]


def get_frame_image(row: ClipRow, index: int | None) -> RGB:
    """The stored frame with this source frame number.

    Raises:
        ValueError: the frame was freed.
    """
    for frame in row["frames"]:
        if frame["index"] == index:
            return decode_image(frame["image"])
    raise ValueError(f"frame {index} of {row['clip_id']} was freed")


def find_mask(subject: SubjectRow, index: int) -> EncodedMask | None:
    """A subject's outline in a frame, by source frame number; None: not seen there, or nobody looked."""
    if subject["frame_index"] == index and subject["mask"] is not None:
        return subject["mask"]
    return next((each["mask"] for each in subject["track"] or () if each["index"] == index), None)


def find_box(subject: SubjectRow, index: int) -> list[float] | None:
    """A subject's box in a frame, by source frame number; None: not seen there, or nobody looked."""
    if subject["frame_index"] == index:
        return subject["box"]
    return next((each["box"] for each in subject["track"] or () if each["index"] == index), None)


def is_location_known(subject: SubjectRow, index: int) -> bool:
    """Whether it is known where a subject is in a frame, or that it is not there."""
    return subject["frame_index"] == index or any(each["index"] == index for each in subject["track"] or ())


def make_cutout(image: RGB, mask: BoolMask, padding: float, feather: float = 1.0) -> tuple[RGB, RGBA]:
    """(crop, the same crop with the background transparent), padded by a share of the box's sides.

    `feather` is the width in pixels of the soft edge of the transparency.
    """
    box = get_mask_box(mask)
    if box is None:
        raise ValueError("the mask is empty")
    x0, y0, x1, y1 = pad_box(box, padding, image.shape[1], image.shape[0])
    crop = np.ascontiguousarray(image[y0:y1, x0:x1])
    alpha = soften_mask(mask[y0:y1, x0:x1], feather)
    return crop, np.dstack([crop, (alpha * 255).round().astype(np.uint8)])


def composite_on_white(picture: RGBA) -> RGB:
    """RGBA -> RGB, for comparing subjects: where they are must not count."""
    return composite_over(picture, np.full((*picture.shape[:2], 3), 255, np.uint8))


def make_subject_cutout(row: ClipRow, subject: SubjectRow, padding: float) -> tuple[RGB, RGBA]:
    """`cutout` of a kept subject from its stored frame."""
    assert subject["mask"] is not None
    return make_cutout(get_frame_image(row, subject["frame_index"]), decode_mask(subject["mask"]), padding)


def soften_mask(mask: BoolMask, feather: float) -> NDArray[np.float32]:
    """Mask -> opacity 0..1 whose edge falls off inwards over about `feather` px, so that no background shows.

    Deeper inside it is 1 exactly. The picture's own border is no edge: a subject cut off there stays opaque.
    """
    opaque = mask.astype(np.uint8)
    if feather <= 0:
        return opaque.astype(np.float32)
    inside = cv2.distanceTransform(opaque, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return cast(NDArray[np.float32], np.clip(inside / (1 + feather), 0, 1).astype(np.float32))


def resize_cutout(picture: RGBA, width: int, height: int) -> RGBA:
    """Resample to (width, height) px without what is transparent bleeding into the outline."""
    smaller = height < picture.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    alpha = picture[..., 3:].astype(np.float32)
    flat = cv2.resize(
        np.dstack([picture[..., :3] * (alpha / 255), alpha]), (width, height), interpolation=how
    )
    opacity = np.clip(flat[..., 3:], 0, 255)
    colour = flat[..., :3] * (255 / np.maximum(opacity, 1))
    return cast(RGBA, np.clip(np.dstack([colour, opacity]).round(), 0, 255).astype(np.uint8))


def composite_over(front: RGBA, back: RGB) -> RGB:
    """Composite an RGBA picture over an RGB one of the same size."""
    alpha = front[..., 3:].astype(np.float32) / 255
    mixed = front[..., :3] * alpha + back * (1 - alpha)
    return cast(RGB, mixed.round().astype(np.uint8))


def remove_references(subject: SubjectRow, variant: str) -> None:
    """Remove the references of one variant, so that making them again leaves none of other settings."""
    subject["references"] = [each for each in subject["references"] if each["variant"] != variant]


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
    """Add a reference; one with the same variant and ordinal is replaced.

    `frame_index` is the frame of its own clip that shows it. It counts as kept until
    `curation.rows.verdicts.decide_references` has looked at its numbers.
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
