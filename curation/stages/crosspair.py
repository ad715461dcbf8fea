"""The subject in a place it never was (Kaleido A.1, cross-paired samples; variant `crosspair`).

"Segmented subjects are composited with backgrounds or video clips from different, unrelated sources": a
plate is a frame of some clip, either with its subjects painted out (a background) or as it is (a clip). A
subject is composited only with plates of other videos whose caption speaks of other things, so that nothing
of its own context comes along.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np

from curation.config import CurationConfig
from curation.imaging.codec import RGB, compute_luma, decode_image, decode_mask, encode_image
from curation.imaging.composite import composite_subject
from curation.imaging.lift import RelativeBox, lift_subject
from curation.imaging.row_pictures import add_reference, get_frame_image
from curation.models.roles import Inpainter
from curation.rows.ids import derive_seed
from curation.rows.references import (
    find_box,
    find_mask,
    is_location_known,
    list_kept_subjects,
    remove_references,
)
from curation.rows.schema import ClipRow, EncodedImage, SubjectRow
from reprise.digest import compute_digest
from reprise.errors import RepriseError

log = logging.getLogger(__name__)

VARIANT = "crosspair"
_MAX_WORD_OVERLAP = 0.34  # word overlap (Jaccard) of two captions above which their clips count as related
_PLATE_LONG_SIDE = 960  # px: a reference picture, not a film frame
_GROW_SHARE = 0.012  # of the frame's diagonal: a subject's soft edge and shadow must go with it
_MAX_PAINTED = 0.4  # share of a plate that may have been painted; above it little real background is left
_MAX_FILLED = 0.5  # share of a clip's frame that its own subjects may fill, or nothing else has room
_LUMA_RANGE = (30.0, 235.0)  # mean; darker or brighter plates show nothing
_CLIP_SHARE = 0.25  # of plates are clips as they are (ours), and more where few rows can give a background
_MAX_COVER_RATIO = (
    1.2  # a subject is expected to hide what was painted where that is at most this much larger
)
# Verdicts that doubt the outline, as what is small may be a part: the rest of it would not be painted out.
_OUTLINE_THRESHOLDS = (
    "grounding_min", "label_min", "segment_min", "area_share_min", "border_share_max", "clip_category_min"
)  # fmt: skip
# Heights in metres, for the size of one thing beside another; a group's holds where the category has none.
_TRUE_HEIGHTS = {
    "human": 1.7, "baby": 0.7, "child": 1.2, "boy": 1.3, "girl": 1.3,
    "animal": 0.5, "cat": 0.3, "dog": 0.5, "horse": 1.7, "cow": 1.5, "elephant": 3.0, "giraffe": 4.5,
    "bird": 0.2, "vehicle": 1.6, "bus": 3.0, "truck": 3.0, "train": 4.0, "motorcycle": 1.2, "bicycle": 1.1,
    "airplane": 6.0, "ship": 20.0, "spaceship": 30.0, "food": 0.1, "drink": 0.15, "kitchenware": 0.15,
    "furniture": 0.9, "instrument": 0.9, "toy": 0.3, "accessory": 0.2, "electronics": 0.3, "tool": 0.3,
}  # fmt: skip
# What throws a shadow where its lower end is: groups that stand, without the categories that fly or swim.
_STANDING = frozenset(
    ("human", "animal", "vehicle", "furniture", "kitchenware", "container", "appliance", "food", "drink")
)
_AIRBORNE = frozenset(
    ("airplane", "helicopter", "drone", "hot air balloon", "spaceship", "boat", "canoe", "ship", "submarine",
     "jet ski", "bird", "crow", "owl", "eagle", "parrot", "seagull", "bat", "fish", "shark", "whale",
     "dolphin", "seal", "octopus", "jellyfish", "butterfly", "bee", "insect", "dragon", "astronaut",
     "swimmer", "superhero")
)  # fmt: skip

PlateKind = Literal["background", "clip"]


@dataclass(frozen=True)
class Plate:
    """A picture to composite with, and where it comes from; its `image` is encoded, as a pool travels.

    `boxes`: of its subjects, shares of its sides: painted out in a background, to be seen in a clip.
    `metres`: what its full height spans at their distance; None: unknown.
    """

    clip_id: str
    video_id: str
    caption: str
    image: EncodedImage
    kind: PlateKind = "background"
    frame_index: int | None = None
    boxes: tuple[RelativeBox, ...] = ()
    metres: float | None = None


def can_give_plate(row: ClipRow) -> bool:
    """Whether a row can give a plate of either kind."""
    return choose_background_frame(row) is not None or choose_clip_frame(row, 0) is not None


def choose_background_frame(row: ClipRow) -> int | None:
    """The frame to make a background of, or None.

    Only of a clip whose subjects were looked for, or whose caption names none: what nobody looked for would
    stay in the picture. Subjects of different frames exclude each other, as each is seen in both, unless a
    tracker has said where they are in one of them; and each must have an outline that can be trusted, or half
    of it would stay.
    """
    is_searched = row["status"] == "kept" or (
        row["stop"] is not None and row["stop"]["stage"] in ("match", "filter")
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
    """The frame of a clip that is taken as it is, drawn by seed, or None where its subjects fill it."""
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
    """A background or a clip, drawn by seed; the other kind where the row cannot give the one.

    Args:
        clips: share of plates that are clips as they are, 0..1.

    Raises:
        ValueError: the row can give neither, or its picture cannot be read.
    """
    still = choose_background_frame(row)
    moving = choose_clip_frame(row, seed) if clip_share > 0 or still is None else None
    drawn = derive_seed(seed, row["clip_id"], "plate kind") / 0x80000000 < clip_share
    if still is not None and not (drawn and moving is not None):
        return _paint_plate(row, still, "background", inpainter, seed)
    if moving is not None:
        return _paint_plate(row, moving, "clip", inpainter, seed)
    raise ValueError(f"{row['clip_id']} gives no plate")


def _paint_plate(row: ClipRow, index: int, kind: PlateKind, inpainter: Inpainter, seed: int) -> Plate:
    image = get_frame_image(row, index)
    mine = [subject for subject in row["subjects"] if subject["frame_index"] == index]
    height, width = image.shape[:2]
    boxes = [box for subject in row["subjects"] if (box := find_box(subject, index)) is not None]
    hole = np.zeros((height, width), np.uint8)
    for subject in row["subjects"] if kind == "background" else ():
        mask = find_mask(subject, index)
        if mask is not None:
            hole |= decode_mask(mask).astype(np.uint8)
    scale = min(1.0, _PLATE_LONG_SIDE / max(height, width))
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
        metres=_estimate_frame_height(mine),
    )


def _is_frame_visible(row: ClipRow, index: int | None) -> bool:
    """Whether a frame is neither nearly black nor nearly white; who cannot read it will find out later."""
    try:
        return _LUMA_RANGE[0] <= float(compute_luma(get_frame_image(row, index)).mean()) <= _LUMA_RANGE[1]
    except ValueError:
        return True


def _is_described(row: ClipRow) -> bool:
    """A clip with a picture, of which it is known what it speaks of."""
    has_picture = row["status"] != "failed" and bool(row["frames"]) and row["video_id"] is not None
    return has_picture and bool((row["caption"] or "").strip())


def _list_found_subjects(row: ClipRow) -> list[SubjectRow]:
    return [subject for subject in row["subjects"] if subject["frame_index"] is not None]


def _measure_covered_share(subject: SubjectRow, index: int) -> float:
    """Share of a frame that a subject covers, 0..1, as far as is known."""
    if subject["frame_index"] == index:
        return subject["scores"].get("area_share") or 0.0
    mask = find_mask(subject, index)
    return float(decode_mask(mask).mean()) if mask is not None else 0.0


def _has_reliable_outline(subject: SubjectRow) -> bool:
    if subject["mask"] is None:
        return False
    failures = subject["verdict"]["failures"] if subject["verdict"] is not None else []
    return not any(name in _OUTLINE_THRESHOLDS for name in failures)


def get_true_height(subject: SubjectRow) -> float | None:
    """Metres that such a thing is usually high; None: unknown."""
    return _TRUE_HEIGHTS.get(subject["category"], _TRUE_HEIGHTS.get(subject["group"]))


def _estimate_frame_height(subjects: Sequence[SubjectRow]) -> float | None:
    """Metres over the full height of a frame at the distance of its largest kept subject."""
    best: tuple[float, float] | None = None
    for subject in subjects:
        metres, box, mask = get_true_height(subject), subject["box"], subject["mask"]
        sure = subject["verdict"] is not None and subject["verdict"]["kept"]
        if not sure or metres is None or box is None or mask is None:
            continue
        share = (box[3] - box[1]) / mask["size"][0]
        cut_off = box[1] <= 2 or box[3] >= mask["size"][0] - 2  # what is seen is not its whole height
        if share > 0 and not cut_off and (best is None or share > best[0]):
            best = (share, metres / share)
    return best[1] if best else None


def collect_plates(
    rows: Iterable[ClipRow], inpainter: Inpainter, seed: int, clip_share: float = _CLIP_SHARE
) -> list[Plate]:
    """Make the plates of those rows that can give one. An error costs only the plate of its row.

    Raises:
        RepriseError: The inpainter works for no row.
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
    """Which clips give plates: the `size` with the smallest hashes, so that a new clip changes few."""
    return sorted(clip_ids, key=lambda each: (compute_digest(seed, each), each))[:size]


class Crosspair:
    """Gives `crosspair.share` of the kept subjects one reference on an unrelated plate.

    Which subjects, which plate and where on it depend on ids alone, never on the order of work.
    """

    name = VARIANT

    def __init__(self, config: CurationConfig, pool: Sequence[Plate]) -> None:
        self._config, self._seed = config.crosspair, config.seed
        self._pool = pool
        self._words = {plate.clip_id: _split_words(plate.caption) for plate in pool}

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        for row in rows:
            for subject in list_kept_subjects(row):
                remove_references(subject, VARIANT)
                if self.is_drawn(subject):
                    plate = self._choose_plate(row, subject)
                    if plate is not None:
                        self._add_composite(row, subject, plate)

    def is_drawn(self, subject: SubjectRow) -> bool:
        """Whether this subject is among the share; its id alone decides."""
        return derive_seed(self._seed, subject["subject_id"], "crosspaired") / 0x80000000 < self._config.share

    def _choose_plate(self, row: ClipRow, subject: SubjectRow) -> Plate | None:
        """The plate of an unrelated clip with the smallest hash, so that one more in the pool changes few.

        If that is a background, then the first background whose painted parts this subject can hide.
        """
        words = _split_words(row["caption"] or "")
        strangers = [
            plate
            for plate in self._pool
            if plate.video_id != row["video_id"]
            and _measure_word_overlap(words, self._words[plate.clip_id]) < _MAX_WORD_OVERLAP
        ]
        strangers.sort(key=lambda plate: compute_digest(self._seed, subject["subject_id"], plate.clip_id))
        if not strangers or strangers[0].kind == "clip":
            return strangers[0] if strangers else None
        able = (
            plate
            for plate in strangers
            if plate.kind == "background" and _can_hide_painted_parts(row, subject, plate)
        )
        return next(able, strangers[0])

    def _add_composite(self, row: ClipRow, subject: SubjectRow, plate: Plate) -> None:
        assert subject["mask"] is not None
        seed = derive_seed(self._seed, subject["subject_id"], plate.clip_id)
        cut = lift_subject(
            get_frame_image(row, subject["frame_index"]), decode_mask(subject["mask"]), self._config.feather
        )
        background = plate.kind == "background"
        picture = composite_subject(
            cut,
            decode_image(plate.image),
            np.random.default_rng(seed),
            metres=get_true_height(subject),
            plate_metres=plate.metres,
            avoid=() if background else plate.boxes,
            cover=plate.boxes if background else (),
            casts_shadow=subject["group"] in _STANDING and subject["category"] not in _AIRBORNE,
        )
        add_reference(
            subject,
            VARIANT,
            picture,
            model=f"reprise-composite/{plate.kind}",
            revision="2",
            frame_index=subject["frame_index"],
            seed=seed,
            donor_clip_id=plate.clip_id,
            donor_frame_index=plate.frame_index,
        )


def _can_hide_painted_parts(row: ClipRow, subject: SubjectRow, plate: Plate) -> bool:
    """Whether the subject, at the size it had, is about as large as every part that was painted."""
    x0, y0, x1, y1 = subject["box"] or [0.0] * 4
    wide, tall = (x1 - x0) / (row["width"] or 1), (y1 - y0) / (row["height"] or 1)
    return all(
        right - left <= _MAX_COVER_RATIO * wide and bottom - top <= _MAX_COVER_RATIO * tall
        for left, top, right, bottom in plate.boxes
    )


_STOP_WORDS = frozenset(
    "a an the of in on at and or with to is are from by for its his her their it".split()  # noqa: SIM905
)


def _split_words(caption: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", caption.lower())) - _STOP_WORDS


def _measure_word_overlap(left: frozenset[str], right: frozenset[str]) -> float:
    """Jaccard similarity, 0..1."""
    union = left | right
    return len(left & right) / len(union) if union else 0.0
