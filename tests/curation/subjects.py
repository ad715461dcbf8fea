"""Clip rows with subjects whose frame, outline and verdict a test chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask, encode_image, encode_mask, get_mask_box
from curation.rows.ids import make_subject_id
from curation.rows.schema import CLIPS, ClipRow, SubjectRow

HEIGHT, WIDTH = 120, 160
RED, GREEN, BLUE, GREY = (200, 30, 30), (40, 160, 50), (30, 60, 200), (128, 128, 128)


def scene(colour: tuple[int, int, int] = GREY, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> RGB:
    """A plain colour with a little texture."""
    noise = np.random.default_rng(seed).normal(0, 6, (*size, 1))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def rectangle(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> BoolMask:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def disc(x: int, y: int, radius: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> BoolMask:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 < radius**2)


def painted(image: RGB, mask: BoolMask, colour: tuple[int, int, int], seed: int = 1) -> RGB:
    result = image.copy()
    result[mask] = scene(colour, seed, mask.shape)[mask]
    return result


def subject_row(
    clip: str,
    mask: BoolMask,
    *,
    phrase: str = "red ball",
    category: str = "ball",
    group: str = "sport",
    frame: int = 0,
    kept: bool = True,
    failures: list[str] | None = None,
) -> SubjectRow:
    missed = failures or []
    row: dict[str, Any] = {
        "subject_id": make_subject_id(clip, phrase, 0, 0),
        "category": category,
        "group": group,
        "name": category,
        "phrase": phrase,
        "count": 1,
        "instance": 0,
        "found_index": frame,
        "found_box": get_mask_box(mask),
        "frame_index": frame,
        "box": get_mask_box(mask),
        "mask": encode_mask(mask),
        "track": None,
        "reference_frames": None,
        "scores": {"area_share": float(mask.mean())},
        "verdict": {
            "kept": kept and not missed,
            "reason": missed[0] if missed else None,
            "value": None,
            "threshold": None,
            "failures": missed,
            "unmeasured": [],
        },
        "made_by": None,
        "references": [],
    }
    return row  # type: ignore[return-value]


def clip_row(
    name: str,
    frames: dict[int, NDArray[np.uint8]],
    subjects: list[SubjectRow],
    *,
    video: str | None = None,
    caption: str = "A red ball.",
) -> ClipRow:
    """A kept clip (or one that a filter rejected, where no subject is kept)."""
    height, width = next(iter(frames.values())).shape[:2]
    row: dict[str, Any] = dict.fromkeys(CLIPS.names)
    keeps = any(subject["verdict"]["kept"] for subject in subjects if subject["verdict"])
    stop = {"stage": "filter", "reason": "no subject", "value": None, "threshold": None}
    row.update(
        clip_id=name,
        video_id=video or f"video of {name}",
        source_path=name,
        source_key=name,
        clip_index=0,
        clip_count=1,
        width=width,
        height=height,
        caption=caption,
        status="kept" if keeps else "rejected",
        stop=None if keeps else stop,
        frames=[
            {"index": index, "time_s": 0.0, "image": encode_image(image), "motion": None}
            for index, image in frames.items()
        ],
        subjects=subjects,
    )
    return row  # type: ignore[return-value]


def ball_clip(
    name: str, colour: tuple[int, int, int] = RED, *, group: str = "sport", **known: Any
) -> ClipRow:
    """One ball on grey, kept, in frame 0."""
    mask = disc(80, 70, 30)
    image = painted(scene(GREY), mask, colour)
    return clip_row(name, {0: image}, [subject_row(name, mask, group=group)], **known)
