"""Convert a clip row to a card of the gallery (with pictures) and an entry for filtering (without)."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Any, Final

from curation.imaging.codec import RGB
from curation.report.pictures import (
    POSTER_PX,
    TILE_PX,
    build_thumbnail,
    encode_data_uri,
    load_picture,
    outline_subjects,
    shrink_picture,
)

Row = Mapping[str, Any]

# Parts of a row that a card needs: all but motion maps and internal columns.
COLUMNS: Final = (
    "clip_id",
    "source_path",
    "license",
    "clip_path",
    "start_frame",
    "end_frame",
    "start_s",
    "end_s",
    "num_frames",
    "fps",
    "width",
    "height",
    "cut",
    "source_codec",
    "motion",
    "camera_motion",
    "caption",
    "caption_source",
    "status",
    "stop",
    "frames.index",
    "frames.time_s",
    "frames.image",
    "subjects",
)

_CLIP_FIELDS: Final = (
    "source_path",
    "license",
    "clip_path",
    "start_frame",
    "end_frame",
    "start_s",
    "end_s",
    "fps",
    "width",
    "height",
    "cut",
    "source_codec",
    "motion",
    "camera_motion",
    "caption",
    "caption_source",
)
_REFERENCE_FIELDS: Final = (
    "variant",
    "width",
    "height",
    "model",
    "revision",
    "prompt",
    "seed",
    "donor_clip_id",
    "donor_frame_index",
    "identity",
    "face_identity",
    "kept",
    "reason",
)


def build_card(row: Row) -> dict[str, Any]:
    """Build the content of a card for JSON: pictures as data URIs, null for missing values."""
    frames = {frame.get("index"): frame for frame in row.get("frames") or []}
    subjects = list(enumerate(row.get("subjects") or []))
    size = (row.get("width") or 0, row.get("height") or 0)

    # Only shown frames are decoded, each once, however many subjects were found on it.
    @functools.cache
    def get_picture(index: int | None) -> RGB | None:
        return load_picture(frames.get(index, {}).get("image"), POSTER_PX)

    candidates = _rank_posters(subjects, list(frames))
    best = next((index for index in candidates if get_picture(index) is not None), None)
    poster = get_picture(best)
    on_it = [pair for pair in subjects if pair[1].get("frame_index") == best]
    return {
        "clip_id": row.get("clip_id"),
        "status": row.get("status") or "open",
        "stop": _clean_mapping(row.get("stop")),
        **{name: _clean_number(row.get(name)) for name in _CLIP_FIELDS},
        "poster": None if poster is None else encode_data_uri(outline_subjects(poster, on_it, size)),
        "subjects": [
            _build_subject(ordinal, subject, get_picture(subject.get("frame_index")), frames, size)
            for ordinal, subject in subjects
        ],
    }


def build_entry(row: Row) -> dict[str, Any]:
    """Build an entry for filtering: status, reason, text, and per subject its category, group and reason."""
    return {
        "status": row.get("status") or "open",
        "reason": (row.get("stop") or {}).get("reason"),
        "is_clip": row.get("start_frame") is not None,
        "text": f"{row.get('caption') or ''}\n{row.get('source_path') or ''}",
        "subjects": [
            {
                "category": subject.get("category") or "unnamed",
                "group": subject.get("group") or "",
                "reason": (subject.get("verdict") or {}).get("reason"),
            }
            for subject in row.get("subjects") or []
        ],
    }


def _rank_posters(subjects: list[tuple[int, Row]], frames: list[Any]) -> list[Any]:
    """Frames, best first: with most kept subjects, then with most subjects, then nearest to the middle."""

    def rank_frame(position: int) -> tuple[int, int, int]:
        there = [s for _, s in subjects if s.get("frame_index") == frames[position]]
        kept = sum(bool((s.get("verdict") or {}).get("kept")) for s in there)
        return -kept, -len(there), abs(position - len(frames) // 2)

    return [frames[position] for position in sorted(range(len(frames)), key=rank_frame)]


def _build_subject(
    ordinal: int, subject: Row, frame: RGB | None, frames: Mapping[Any, Row], size: tuple[int, int]
) -> dict[str, Any]:
    picture = None
    if frame is not None and (subject.get("box") or subject.get("mask")):
        picture = encode_data_uri(
            outline_subjects(shrink_picture(frame, TILE_PX), [(ordinal, subject)], size, dim=True)
        )
    where = frames.get(subject.get("frame_index")) or {}
    return {
        "subject_id": subject.get("subject_id"),
        "category": subject.get("category") or "unnamed",
        "group": subject.get("group") or "",
        "name": subject.get("name"),
        "phrase": subject.get("phrase"),
        "frame_index": subject.get("frame_index"),
        "time_s": _clean_number(where.get("time_s")),
        "box": subject.get("box"),
        "scores": {
            k: _clean_number(v)
            for k, v in (subject.get("scores") or {}).items()
            if _clean_number(v) is not None
        },
        "verdict": _clean_mapping(subject.get("verdict")),
        "made_by": _parse_made_by(subject.get("made_by")),
        "frame": picture,
        "references": [
            {name: _clean_number(reference.get(name)) for name in _REFERENCE_FIELDS}
            | {"image": build_thumbnail(reference.get("image"))}
            for reference in subject.get("references") or []
        ],
    }


def _parse_made_by(text: str | None) -> dict[str, str]:
    try:
        parsed = json.loads(text or "{}")
    except ValueError:
        return {}
    # A card shows the revision, not the sha256 of the checkpoint.
    return {str(k): str(v).partition("#")[0] for k, v in parsed.items()} if isinstance(parsed, dict) else {}


def _clean_number(value: Any) -> Any:
    """JSON has no NaN and infinity: they become null, which the page shows as not measured."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _clean_mapping(mapping: Row | None) -> dict[str, Any] | None:
    return None if mapping is None else {key: _clean_number(value) for key, value in mapping.items()}
