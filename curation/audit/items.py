"""The content of the page for one subject. The verdict is included only after all answers.

Crop and cut-out are made from the frame, for kept and rejected subjects alike. The dataset has them only of
kept subjects, so showing those would reveal the verdict.
"""

from __future__ import annotations

import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.audit.questions import (
    Answer,
    Question,
    build_reference_question,
    is_good_subject,
    is_rejection_right,
)
from curation.audit.sample import AuditItem, find_larger_neighbour
from curation.imaging.codec import BoolMask, clamp_box, decode_image, decode_mask, encode_image, pad_box
from curation.imaging.cutout import make_cutout
from curation.report.rows import read_row_parts
from reprise.errors import RepriseError
from reprise.storage import Storage

PADDING: Final = 0.1  # of the box's sides, as the dataset's crops have
CACHED_ROWS: Final = 12
_TINT: Final = (45, 190, 170)  # --s0 of the report's style
_VARIANT_TITLES: Final = {"crosspair": "Cross-pair"}  # as the report calls it
_COLUMNS: Final = (
    "clip_path",
    "source_path",
    "source_codec",
    "start_s",
    "end_s",
    "width",
    "height",
    "caption",
    "frames.index",
    "frames.time_s",
    "frames.image",
    "subjects",
)


class RowCache:
    """A cache of the last rows of the dataset, with their pictures. Threads can share it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[str, int], dict[str, Any]] = OrderedDict()

    def read_subject(self, item: AuditItem) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read (clip row, subject row).

        Raises:
            RepriseError: the shard was changed or removed during the audit.
        """
        key = (item.shard, item.row)
        with self._lock:
            if key not in self._cache:
                found = next(read_row_parts(self._storage, [item.shard], _COLUMNS, {(0, item.row)}), None)
                self._cache[key] = found[2] if found else {}
                while len(self._cache) > CACHED_ROWS:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            row = self._cache[key]
        for subject in row.get("subjects") or []:
            if subject.get("subject_id") == item.subject_id:
                return row, subject
        raise RepriseError(f"{self._storage.join_path(item.shard)} was changed: start the audit again")


def describe_subject(item: AuditItem, row: Mapping[str, Any], subject: Mapping[str, Any]) -> dict[str, Any]:
    """Build the content of the page for the questions; it does not depend on verdict or scores."""
    frame = _find_frame(row, subject)
    box = subject.get("box")
    start = _get_number(row.get("start_s"))
    at = _get_number((frame or {}).get("time_s"))
    return {
        "id": item.subject_id,
        "category": subject.get("category"),
        "group": subject.get("group"),
        "phrase": subject.get("phrase") or subject.get("name") or subject.get("category"),
        "caption": row.get("caption"),
        "width": row.get("width"),
        "height": row.get("height"),
        "box": box,
        "other": find_larger_neighbour(row["subjects"], subject)
        if any(q.name == "own" for q in item.questions)
        else None,
        "has_frame": frame is not None and bool((frame.get("image") or {}).get("bytes")),
        "has_mask": any(q.name == "mask" for q in item.questions),
        "has_clip": bool(row.get("clip_path")),
        "codec": row.get("source_codec"),
        # Where in the clip the frame is, s.
        "at": None if at is None or start is None else max(0.0, at - start),
        "questions": [_format_question(q, phrase=subject.get("phrase") or "") for q in item.questions],
    }


def describe_generated(item: AuditItem, subject: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Build the pictures made from a subject with their questions; shown once the subject is judged."""
    sizes = {_get_reference_name(r, item): r for r in subject.get("references") or []}
    return [
        {
            "name": each.name,
            "variant": each.variant,
            "width": sizes[each.name].get("width"),
            "height": sizes[each.name].get("height"),
            "question": _format_question(
                build_reference_question(each.name),
                variant=_VARIANT_TITLES.get(each.variant, each.variant.capitalize()),
            ),
        }
        for each in item.generated
        if each.name in sizes
    ]


def reveal_verdict(
    item: AuditItem, subject: Mapping[str, Any], answers: Mapping[str, Answer]
) -> dict[str, Any]:
    """Build the verdict and the scores of a subject, and whether the person agrees."""
    verdict = subject.get("verdict") or {}
    scores = {name: value for name, value in (subject.get("scores") or {}).items() if _is_finite(value)}
    fine = is_good_subject(answers, item.questions)
    references = {_get_reference_name(r, item): r for r in subject.get("references") or []}
    return {
        "kept": item.kept,
        "agreed": None if fine is None else fine == item.kept,
        "value": verdict.get("value") if _is_finite(verdict.get("value")) else None,
        "threshold": verdict.get("threshold") if _is_finite(verdict.get("threshold")) else None,
        "reason": item.reason,
        "failures": [
            {"name": failure, "agreed": is_rejection_right(failure, answers, item.questions)}
            for failure in item.failures
        ],
        "scores": scores,
        "generated": [
            {
                "name": each.name,
                "variant": each.variant,
                "kept": each.kept,
                "reason": each.reason,
                "agreed": _judge_reference(answers.get(build_reference_question(each.name).name), each.kept),
                "identity": _get_number(references.get(each.name, {}).get("identity")),
                "face_identity": _get_number(references.get(each.name, {}).get("face_identity")),
            }
            for each in item.generated
        ],
    }


def render_picture(
    item: AuditItem, row: Mapping[str, Any], subject: Mapping[str, Any], name: str
) -> tuple[bytes, str] | None:
    """Return (bytes, media type) of `frame`, `mask`, `crop`, `segment` or a reference; None if missing."""
    data: bytes | None
    if name == "frame":
        data = ((_find_frame(row, subject) or {}).get("image") or {}).get("bytes")
    elif name in ("mask", "crop", "segment"):
        try:
            data = _draw_picture(row, subject, name)
        except (ValueError, TypeError, KeyError, cv2.error):
            return None  # a damaged picture fails only its own request
    else:
        wanted: Mapping[str, Any] = next(
            (r for r in subject.get("references") or [] if _get_reference_name(r, item) == name), {}
        )
        data = (wanted.get("image") or {}).get("bytes")
    kind = _detect_media_type(data or b"")
    return (data, kind) if data and kind else None


def _draw_picture(row: Mapping[str, Any], subject: Mapping[str, Any], name: str) -> bytes | None:
    mask: BoolMask | None = decode_mask(subject["mask"]) if subject.get("mask") else None
    if name == "mask":
        return None if mask is None else _draw_overlay(mask)
    frame = decode_image((_find_frame(row, subject) or {}).get("image"))[:, :, :3]
    if mask is not None and mask.shape == frame.shape[:2] and mask.any():
        crop, segment = make_cutout(frame, mask, PADDING)
        return encode_image(crop if name == "crop" else segment)["bytes"]
    if name == "segment" or not subject.get("box"):
        return None
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = pad_box(
        list(map(float, clamp_box(subject["box"], width, height))), PADDING, width, height
    )
    return encode_image(np.ascontiguousarray(frame[y0:y1, x0:x1]))["bytes"]


def _draw_overlay(mask: BoolMask) -> bytes:
    """Draw a mask as a transparent PNG of its size: a tint inside, an opaque line along the edge."""
    inside = mask.astype(np.uint8)
    picture: NDArray[np.uint8] = np.zeros((*mask.shape, 4), np.uint8)
    picture[mask] = (*_TINT[::-1], 96)
    contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    line = 2 if max(mask.shape) >= 1000 else 1
    cv2.drawContours(picture, contours, -1, (*_TINT[::-1], 255), line)
    return bytes(cv2.imencode(".png", picture)[1].tobytes())


def _find_frame(row: Mapping[str, Any], subject: Mapping[str, Any]) -> Mapping[str, Any] | None:
    index = subject.get("frame_index")
    frames = row.get("frames") or []
    return next((frame for frame in frames if index is not None and frame.get("index") == index), None)


def _get_reference_name(reference: Mapping[str, Any], item: AuditItem) -> str:
    return str(reference.get("reference_id") or "").removeprefix(f"{item.subject_id}-")


def _format_question(question: Question, **values: str) -> dict[str, str]:
    def fill_placeholders(text: str) -> str:
        # Not str.format, because a caption may contain braces.
        return functools.reduce(lambda t, kv: t.replace(f"{{{kv[0]}}}", kv[1]), values.items(), text)

    return {
        "name": question.name,
        "title": fill_placeholders(question.title),
        "hint": fill_placeholders(question.hint),
    }


def _judge_reference(answer: Answer | None, kept: bool) -> bool | None:
    return None if answer in (None, "unsure") else (answer == "yes") == kept


def _get_number(value: Any) -> float | None:
    return float(value) if _is_finite(value) else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _detect_media_type(data: bytes) -> str | None:
    """Detect the type by the first bytes, so that only pictures are served as pictures."""
    if data[:3] == b"\xff\xd8\xff":
        return "image/jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "image/png"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
