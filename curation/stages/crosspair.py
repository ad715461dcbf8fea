"""The subject in a place it never was (Kaleido A.1, cross-paired samples; variant `crosspair`).

A plate is a frame of some clip with its subjects painted out. A subject is composited only with plates of
other videos whose caption speaks of other things, so that nothing of its own context comes along.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.config import CurationConfig
from curation.dataset.fragments import Entry
from curation.dataset.shards import read_rows
from curation.errors import RepriseError
from curation.ids import digest, seed_for
from curation.imaging import RGB, decode, decode_mask, encode, mask_box
from curation.models import registry
from curation.models.roles import Inpainter
from curation.references import RGBA, drop, frame_image, kept, over, put, resize_cutout, soften
from curation.schema import ClipRow, Image, SubjectRow
from curation.stages.base import log
from curation.storage import Storage

VARIANT = "crosspair"
_UNLIKE = 0.34  # word overlap (Jaccard) of two captions above which their clips count as related
_PLATE_LONG_SIDE = 960  # px: a reference picture, not a film frame
_GROW_PX = 9  # a subject's soft edge and shadow must go with it
_MAX_PAINTED = 0.4  # share of a plate that may have been painted; above it little real background is left
_LIGHT = 0.35  # how far the subject's light moves towards the plate's; more would repaint the subject
_READ_ROWS = 16  # clips at a time while plates are made
_HEIGHT = (0.35, 0.85)  # bounds of the subject's height, share of the plate's


@dataclass(frozen=True)
class Plate:
    """A background with where it comes from; `image` is encoded, so that a pool travels cheaply."""

    clip_id: str
    video_id: str
    caption: str
    image: Image


def plate_candidate(row: ClipRow) -> bool:
    """Whether a row can give a plate: its subjects are all in one kept frame and leave enough of it."""
    return plate_frame(row) is not None


def plate_frame(row: ClipRow) -> int | None:
    """The frame to make a plate of, or None.

    Only of a clip whose subjects were looked for, or whose caption names none: what nobody looked for would
    stay in the picture. Subjects found in different frames exclude each other, as each is seen in both.
    """
    looked = row["status"] == "kept" or (
        row["stop"] is not None and row["stop"]["stage"] in ("match", "filter")
    )
    told = bool((row["caption"] or "").strip())
    if row["status"] == "failed" or not (looked and told) or not row["frames"] or row["video_id"] is None:
        return None
    found = [subject for subject in row["subjects"] if subject["frame_index"] is not None]
    indices = {subject["frame_index"] for subject in found}
    if len(indices) > 1 or any(subject["mask"] is None for subject in found):
        return None
    if sum(subject["scores"].get("area_share") or 0.0 for subject in found) > _MAX_PAINTED:
        return None
    index = indices.pop() if indices else row["frames"][0]["index"]
    return index if any(frame["index"] == index for frame in row["frames"]) else None


def make_plate(row: ClipRow, inpainter: Inpainter, seed: int) -> Plate:
    """A candidate's frame with every subject painted out.

    Raises:
        ValueError: the row is no candidate, or its picture cannot be read.
    """
    index = plate_frame(row)
    if index is None:
        raise ValueError(f"{row['clip_id']} gives no plate")
    image = frame_image(row, index)
    hole = np.zeros(image.shape[:2], np.uint8)
    for subject in row["subjects"]:
        if subject["mask"] is not None:
            hole |= decode_mask(subject["mask"]).astype(np.uint8)
    scale = min(1.0, _PLATE_LONG_SIDE / max(image.shape[:2]))
    if scale < 1:
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        image = cast(RGB, cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        hole = cast(RGB, cv2.resize(hole, size, interpolation=cv2.INTER_NEAREST))
    if hole.any():
        hole = cast(RGB, cv2.dilate(hole, np.ones((2 * _GROW_PX + 1,) * 2, np.uint8)))
        image = inpainter.inpaint(
            [image], [hole.astype(bool)], [None], [seed_for(seed, row["clip_id"], "plate")]
        )[0]
    return Plate(row["clip_id"], row["video_id"] or "", row["caption"] or "", encode(image))


def plates(rows: Iterable[ClipRow], inpainter: Inpainter, seed: int) -> list[Plate]:
    """Plates of those rows that can give one; a picture that cannot be read costs its own plate."""
    made = []
    for row in rows:
        try:
            if plate_candidate(row):
                made.append(make_plate(row, inpainter, seed))
        except ValueError as error:
            log.warning("%s gives no plate: %s", row["clip_id"], error)
    return made


def pool_of(clip_ids: Iterable[str], size: int, seed: int) -> list[str]:
    """Which clips give plates: the `size` with the smallest hashes, so that a new clip changes few."""
    return sorted(clip_ids, key=lambda each: (digest(seed, each), each))[:size]


def table_entries(storage: Storage, files: Sequence[str]) -> list[Entry]:
    """Every row of some clip tables, without what is heavy.

    Raises:
        RepriseError: no clip table, or a clip stands in two of them.
    """
    found: dict[tuple[str, str], Entry] = {}
    columns = [name for name in Entry.__dataclass_fields__ if name != "file"]
    for file in files:
        for row in storage.read_table(file, columns).to_pylist():
            entry = Entry(**{**row, "start_frame": row["start_frame"] or 0}, file=file)
            twin = found.setdefault((entry.source_key, entry.clip_id), entry)
            if twin is not entry:
                both = " and ".join(dict.fromkeys((twin.file, file)))
                raise RepriseError(f"clip {entry.clip_id} is there twice, in {both}: name one table")
    return list(found.values())


def pool(storage: Storage, files: Sequence[str], config: CurationConfig) -> list[Plate]:
    """The plates of the clips in some tables, as `Crosspair` takes them.

    Raises:
        RepriseError: as `table_entries`, or nobody answers the role `inpainter`.
    """
    if config.crosspair.share == 0:
        return []
    with_frames = {each.clip_id: each for each in table_entries(storage, files) if each.payload_bytes > 0}
    chosen = [with_frames[clip_id] for clip_id in pool_of(with_frames, config.crosspair.pool, config.seed)]
    inpainter = registry.required(config, "inpainter")
    rows = read_rows(storage, sorted(chosen, key=lambda each: each.order), _READ_ROWS)
    return [plate for batch in rows for plate in plates(batch, inpainter, config.seed)]


class Crosspair:
    """Gives `crosspair.share` of the kept subjects one reference on an unrelated plate.

    Which subjects, which plate and where on it depend on ids alone, never on the order of work.
    """

    name = VARIANT

    def __init__(self, config: CurationConfig, pool: Sequence[Plate]) -> None:
        self._config, self._seed = config.crosspair, config.seed
        self._pool = pool
        self._words = {plate.clip_id: _words(plate.caption) for plate in pool}

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        for row in rows:
            for subject in kept(row):
                drop(subject, VARIANT)
                if self.draws(subject):
                    plate = self._plate(row, subject)
                    if plate is not None:
                        self._compose(row, subject, plate)

    def draws(self, subject: SubjectRow) -> bool:
        """Whether this subject is among the share; its id alone decides."""
        return seed_for(self._seed, subject["subject_id"], "crosspaired") / 0x80000000 < self._config.share

    def _plate(self, row: ClipRow, subject: SubjectRow) -> Plate | None:
        """The plate of an unrelated clip with the smallest hash, so that one more in the pool changes few."""
        words = _words(row["caption"] or "")
        strangers = [
            plate
            for plate in self._pool
            if plate.video_id != row["video_id"] and _overlap(words, self._words[plate.clip_id]) < _UNLIKE
        ]
        return min(
            strangers,
            key=lambda plate: digest(self._seed, subject["subject_id"], plate.clip_id),
            default=None,
        )

    def _compose(self, row: ClipRow, subject: SubjectRow, plate: Plate) -> None:
        assert subject["mask"] is not None
        seed = seed_for(self._seed, subject["subject_id"], plate.clip_id)
        picture = composite(
            frame_image(row, subject["frame_index"]),
            decode_mask(subject["mask"]),
            decode(plate.image),
            np.random.default_rng(seed),
            self._config.feather,
        )
        put(
            subject,
            VARIANT,
            picture,
            model="reprise-composite",
            revision="1",
            seed=seed,
            donor_clip_id=plate.clip_id,
        )


def composite(
    image: RGB, mask: NDArray[np.bool_], plate: RGB, rng: np.random.Generator, feather: float
) -> RGB:
    """The masked subject on a plate: size as in its own frame within bounds, place drawn, light drawn near.

    Raises:
        ValueError: the mask is empty.
    """
    box = mask_box(mask)
    if box is None:
        raise ValueError("the mask is empty")
    x0, y0, x1, y1 = (int(side) for side in box)
    front = np.dstack(
        [image[y0:y1, x0:x1], (soften(mask[y0:y1, x0:x1], feather) * 255).round().astype(np.uint8)]
    )
    height, width = plate.shape[:2]
    wanted = float(np.clip((y1 - y0) / image.shape[0] * rng.uniform(0.85, 1.15), *_HEIGHT)) * height
    scale = min(wanted / (y1 - y0), 0.95 * width / (x1 - x0))
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    front = resize_cutout(front, *size)
    left = int(rng.integers(0, max(1, width - size[0] + 1)))
    # Things stand on something: the lower half of the room there is.
    room = max(0, height - size[1])
    top = int(rng.integers(room // 2, room + 1))
    canvas: RGBA = np.zeros((height, width, 4), np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = relight(
        front, plate[top : top + size[1], left : left + size[0]]
    )
    return over(canvas, plate)


def relight(front: RGBA, behind: RGB) -> RGBA:
    """Move the subject's mean colour (CIE Lab) a part of the way to that of the place where it will stand."""
    opaque = front[..., 3] > 127
    if not opaque.any():
        return front
    lab = cv2.cvtColor(front[..., :3], cv2.COLOR_RGB2LAB).astype(np.float32)
    target = cv2.cvtColor(behind, cv2.COLOR_RGB2LAB).reshape(-1, 3).mean(axis=0)
    shift = _LIGHT * (target - lab[opaque].mean(axis=0))
    moved = np.clip(lab + shift, 0, 255).astype(np.uint8)
    return cast(RGBA, np.dstack([cv2.cvtColor(moved, cv2.COLOR_LAB2RGB), front[..., 3]]))


_STOP_WORDS = frozenset(
    "a an the of in on at and or with to is are from by for its his her their it".split()  # noqa: SIM905
)


def _words(caption: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", caption.lower())) - _STOP_WORDS


def _overlap(left: frozenset[str], right: frozenset[str]) -> float:
    """Jaccard similarity, 0..1."""
    union = left | right
    return len(left & right) / len(union) if union else 0.0
