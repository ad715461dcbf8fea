"""Make plates: pictures of clips on which subjects of other clips are put (Kaleido A.1).

A plate is a frame of a clip. Its subjects are either painted out (a background) or unchanged (a clip).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np

from curation.imaging.codec import RGB, compute_luma, decode_mask, encode_image
from curation.imaging.lift import RelativeBox
from curation.imaging.row_pictures import get_frame_image
from curation.models.roles import Inpainter
from curation.rows.ids import derive_seed
from curation.rows.references import find_box, find_mask, is_location_known
from curation.rows.schema import ClipRow, EncodedImage, SubjectRow
from curation.rows.stage_names import FILTER, MATCH
from reprise.digest import compute_digest
from reprise.errors import RepriseError

log = logging.getLogger(__name__)

PlateKind = Literal["background", "clip"]

_CLIP_SHARE = (
    0.25  # share of plates of the kind clip; our value. It is higher if few rows can give a background
)
_LONG_SIDE = 960  # px; enough for a reference picture
_GROW_SHARE = 0.012  # of the frame's diagonal; a subject's soft edge and shadow are painted out, too
_MAX_PAINTED = 0.4  # greatest painted share of a plate; beyond it little real background is left
_MAX_FILLED = 0.5  # greatest share of a clip's frame that its own subjects fill, so that another one fits
_LUMA_RANGE = (30.0, 235.0)  # of the mean; darker or brighter plates show too little
_EDGE_PX = 2  # a box that ends this close to the frame's upper or lower edge counts as cut off
# A subject rejected by these may have a wrong outline. If it is too small, the mask may cover only a part.
_OUTLINE_THRESHOLDS = (
    "grounding_min", "label_min", "segment_min", "area_share_min", "border_share_max", "clip_category_min"
)  # fmt: skip


@dataclass(frozen=True)
class WholeSubject:
    """A kept subject whose whole height is in the frame, so that its true height gives the frame's scale."""

    category: str
    group: str
    height: float  # share of the frame's height


@dataclass(frozen=True)
class Plate:
    """A picture to put subjects on, and its origin.

    Attributes:
        image: encoded, because plates are sent between workers.
        boxes: the boxes of its subjects, xyxy, shares of its sides. A background has them painted out.
        scale: the whole subjects of its frame. They give its scale in metres.
    """

    clip_id: str
    video_id: str
    caption: str
    image: EncodedImage
    kind: PlateKind = "background"
    frame_index: int | None = None
    boxes: tuple[RelativeBox, ...] = ()
    scale: tuple[WholeSubject, ...] = ()


def can_give_plate(row: ClipRow) -> bool:
    """Return whether a row can give a plate of either kind."""
    return choose_background_frame(row) is not None or choose_clip_frame(row, 0) is not None


def choose_background_frame(row: ClipRow) -> int | None:
    """Choose the frame for a background and return its source frame number; None: there is none.

    A clip can give a background only if its subjects were searched, or if its caption names none. Otherwise
    an unknown subject could stay in the picture. One frame must have a mask of every subject, from the
    detector or the tracker. Each mask must be reliable, or a part of its subject would stay.
    """
    is_searched = row["status"] == "kept" or (
        row["stop"] is not None and row["stop"]["stage"] in (MATCH, FILTER)
    )
    if not is_searched or not _is_described(row):
        return None
    found = _list_found_subjects(row)
    if any(not _has_reliable_outline(subject) for subject in found):
        return None
    indices = [subject["frame_index"] for subject in found if subject["frame_index"] is not None]
    known = [index for index in sorted(set(indices)) if all(is_location_known(each, index) for each in found)]
    for index in known if indices else [row["frames"][0]["index"]]:
        small = sum(_measure_covered_share(each, index) for each in found) <= _MAX_PAINTED
        there = any(frame["index"] == index for frame in row["frames"])
        if small and there and _is_frame_visible(row, index):
            return index
    return None


def choose_clip_frame(row: ClipRow, seed: int) -> int | None:
    """Draw by seed a frame for a plate of the kind clip; None: the subjects fill too much of every frame."""
    if not _is_described(row):
        return None
    found = _list_found_subjects(row)
    free = [
        frame["index"]
        for frame in row["frames"]
        if sum(_measure_covered_share(each, frame["index"]) for each in found) <= _MAX_FILLED
        and _is_frame_visible(row, frame["index"])
    ]
    return min(free, key=lambda index: compute_digest(seed, row["clip_id"], index), default=None)


def make_plate(row: ClipRow, inpainter: Inpainter, seed: int, clip_share: float = _CLIP_SHARE) -> Plate:
    """Make a background or a clip, drawn by seed, or the other kind if the row cannot give the drawn one.

    Args:
        row: a clip with its frames.
        inpainter: paints the subjects out of a background.
        seed: the seed of the run.
        clip_share: the share of plates of the kind clip, 0..1.

    Raises:
        ValueError: the row can give neither kind, or its picture cannot be read.
    """
    still = choose_background_frame(row)
    moving = choose_clip_frame(row, seed) if clip_share > 0 or still is None else None
    drawn = derive_seed(seed, row["clip_id"], "plate kind") / 0x80000000 < clip_share
    if still is not None and not (drawn and moving is not None):
        return _paint_plate(row, still, "background", inpainter, seed)
    if moving is not None:
        return _paint_plate(row, moving, "clip", inpainter, seed)
    raise ValueError(f"{row['clip_id']} gives no plate")


def collect_plates(
    rows: Iterable[ClipRow], inpainter: Inpainter, seed: int, clip_share: float = _CLIP_SHARE
) -> list[Plate]:
    """Make the plates of all rows that can give one. An error fails only the plate of its row.

    Raises:
        RepriseError: the inpainter cannot work on any row.
    """
    made = []
    for row in rows:
        try:
            if can_give_plate(row):
                made.append(make_plate(row, inpainter, seed, clip_share))
        except RepriseError:
            raise
        except Exception as error:
            log.warning("%s gives no plate: %s", row["clip_id"], error, exc_info=error)
    return made


def choose_plate_clips(clip_ids: Iterable[str], size: int, seed: int) -> list[str]:
    """Choose the `size` clips with the smallest hashes, so that a new clip changes few choices."""
    return sorted(clip_ids, key=lambda each: (compute_digest(seed, each), each))[:size]


def _paint_plate(row: ClipRow, index: int, kind: PlateKind, inpainter: Inpainter, seed: int) -> Plate:
    image = get_frame_image(row, index)
    height, width = image.shape[:2]
    boxes = [box for subject in row["subjects"] if (box := find_box(subject, index)) is not None]
    hole = np.zeros((height, width), np.uint8)
    for subject in row["subjects"] if kind == "background" else ():
        mask = find_mask(subject, index)
        if mask is not None:
            hole |= decode_mask(mask).astype(np.uint8)
    scale = min(1.0, _LONG_SIDE / max(height, width))
    if scale < 1:
        size = (round(width * scale), round(height * scale))
        image = cast(RGB, cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        hole = np.asarray(cv2.resize(hole, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    if hole.any():
        reach = 2 * round(_GROW_SHARE * float(np.hypot(*hole.shape))) + 1
        grown = cv2.dilate(hole, np.ones((reach, reach), np.uint8)).astype(bool)
        image = inpainter.inpaint([image], [grown], [None], [derive_seed(seed, row["clip_id"], "plate")])[0]
    return Plate(
        clip_id=row["clip_id"],
        video_id=row["video_id"] or "",
        caption=row["caption"] or "",
        image=encode_image(image),
        kind=kind,
        frame_index=index,
        boxes=tuple((x0 / width, y0 / height, x1 / width, y1 / height) for x0, y0, x1, y1 in boxes),
        scale=tuple(_list_whole_subjects(row, index)),
    )


def _list_whole_subjects(row: ClipRow, index: int) -> list[WholeSubject]:
    """List the kept subjects of a frame that its upper and lower edge do not cut off."""
    found = []
    for subject in row["subjects"]:
        box, mask, verdict = subject["box"], subject["mask"], subject["verdict"]
        is_kept = verdict is not None and verdict["kept"]
        if subject["frame_index"] != index or not is_kept or box is None or mask is None:
            continue
        frame_height = mask["size"][0]
        height = (box[3] - box[1]) / frame_height
        is_cut_off = box[1] <= _EDGE_PX or box[3] >= frame_height - _EDGE_PX
        if height > 0 and not is_cut_off:
            found.append(WholeSubject(subject["category"], subject["group"], height))
    return found


def _is_frame_visible(row: ClipRow, index: int | None) -> bool:
    """Return whether a frame is neither nearly black nor nearly white. An unreadable frame fails later."""
    try:
        return _LUMA_RANGE[0] <= float(compute_luma(get_frame_image(row, index)).mean()) <= _LUMA_RANGE[1]
    except ValueError:
        return True


def _is_described(row: ClipRow) -> bool:
    """Return whether a clip has a picture and a caption."""
    has_picture = row["status"] != "failed" and bool(row["frames"]) and row["video_id"] is not None
    return has_picture and bool((row["caption"] or "").strip())


def _list_found_subjects(row: ClipRow) -> list[SubjectRow]:
    return [subject for subject in row["subjects"] if subject["frame_index"] is not None]


def _measure_covered_share(subject: SubjectRow, index: int) -> float:
    """Measure the share of a frame that a subject covers, 0..1; 0 if it has no mask there."""
    if subject["frame_index"] == index:
        return subject["scores"].get("area_share") or 0.0
    mask = find_mask(subject, index)
    return float(decode_mask(mask).mean()) if mask is not None else 0.0


def _has_reliable_outline(subject: SubjectRow) -> bool:
    if subject["mask"] is None:
        return False
    failures = subject["verdict"]["failures"] if subject["verdict"] is not None else []
    return not any(name in _OUTLINE_THRESHOLDS for name in failures)
