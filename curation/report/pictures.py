"""Thumbnails for the page: dataset pictures shrunk, subjects outlined on their frames, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask, decode_image, decode_mask

POSTER_PX: Final = 480  # long side
TILE_PX: Final = 288
QUALITY: Final = 72
_ALPHA_QUALITY: Final = 70
_ALPHA_EFFORT: Final = 2  # of 6: half the time of the usual 4, for files a tenth larger

# Colour of the n-th subject of a clip; the page uses the same list (`--s0` ... in style.css), so that a box,
# a phrase in the caption and a heading are seen to belong together. RGB, all readable on photographs.
SUBJECT_COLORS: Final[tuple[tuple[int, int, int], ...]] = (
    (45, 190, 170),
    (245, 166, 35),
    (90, 140, 255),
    (236, 92, 140),
    (150, 200, 60),
    (170, 120, 240),
)


def encode_data_uri(picture: NDArray[np.uint8]) -> str:
    """Encode (H, W, 3) RGB as JPEG or (H, W, 4) RGBA as WebP, in a data URI."""
    if picture.ndim == 3 and picture.shape[2] == 4:
        file = io.BytesIO()
        PIL.Image.fromarray(picture).save(file, "WEBP", quality=_ALPHA_QUALITY, method=_ALPHA_EFFORT)
        kind, data = "webp", file.getvalue()
    else:
        bgr = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        kind, data = "jpeg", cv2.imencode(".jpg", bgr, options)[1].tobytes()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def shrink_picture(picture: RGB, long_side: int) -> RGB:
    """Scale a picture down so that its longer side has at most `long_side` px; smaller pictures stay."""
    height, width = picture.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if picture.ndim == 3 and picture.shape[2] == 4:
        # Without the weights, the arbitrary colours under transparent pixels would colour the outline.
        weighted = PIL.Image.fromarray(picture).convert("RGBa")
        small = weighted.resize(size, PIL.Image.Resampling.BOX, reducing_gap=2.0)
        return np.asarray(small.convert("RGBA"))
    return cast(RGB, cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def build_thumbnail(image: Any, long_side: int = TILE_PX) -> str | None:
    """Encode a dataset picture as a small data URI; None: its bytes were freed or cannot be read."""
    picture = load_picture(image, long_side)
    return None if picture is None else encode_data_uri(picture)


def load_picture(image: Any, long_side: int) -> RGB | None:
    """Decode a `schema.EncodedImage` to an array no longer than `long_side` px; None: it cannot be read."""
    try:
        picture = _decode_small(image["bytes"], long_side) if image else None
        picture = decode_image(image) if picture is None else picture
    except (ValueError, TypeError, KeyError, cv2.error):
        return None
    return shrink_picture(picture, long_side) if picture.dtype == np.uint8 else None


def _decode_small(data: bytes | None, long_side: int) -> RGB | None:
    """A JPEG much larger than needed, decoded at 1/2, 1/4 or 1/8, which is faster; None: decode it whole."""
    if not data or data[:2] != b"\xff\xd8":
        return None
    try:
        with PIL.Image.open(io.BytesIO(data)) as header:
            ratio, kind = max(header.size) / long_side, header.mode
    except OSError:
        return None
    reduced = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
    flag = next((flag for factor, flag in reduced.items() if ratio >= factor), None)
    if flag is None or kind != "RGB":
        return None
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    return None if bgr is None else cast(RGB, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def outline_subjects(
    frame: RGB,
    subjects: Sequence[tuple[int, Mapping[str, Any]]],
    clip_size: tuple[int, int],
    *,
    dim: bool = False,
) -> RGB:
    """Draw every subject's box, mask outline and number in its colour on a copy of the frame.

    Args:
        frame: (H, W, 3) RGB, already at the size to show.
        subjects: (ordinal within the clip, subject row) pairs.
        clip_size: (width, height) px that boxes refer to.
        dim: darken everything outside the masks.
    """
    if frame.ndim == 2:
        frame = cast(RGB, cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB))
    canvas = np.ascontiguousarray(frame[:, :, :3]).copy()
    height, width = canvas.shape[:2]
    masks = [_resize_mask(subject.get("mask"), width, height) for _, subject in subjects]
    if dim and any(mask is not None for mask in masks):
        covered = np.logical_or.reduce([mask for mask in masks if mask is not None])
        canvas[~covered] = (canvas[~covered] * 0.45).astype(np.uint8)
    for (ordinal, subject), mask in zip(subjects, masks, strict=True):
        color = SUBJECT_COLORS[ordinal % len(SUBJECT_COLORS)]
        if mask is not None:
            if not dim:
                canvas[mask] = (canvas[mask] * 0.82 + np.array(color) * 0.18).astype(np.uint8)
            contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            cv2.drawContours(canvas, contours, -1, color, 2 if dim else 1, cv2.LINE_AA)
        box = subject.get("box")
        if box and len(box) == 4 and min(clip_size) > 0:
            _draw_box(canvas, box, (width / clip_size[0], height / clip_size[1]), color, ordinal + 1)
    return canvas


def _resize_mask(mask: Any, width: int, height: int) -> BoolMask | None:
    """A subject's mask resampled to (height, width); None where there is none or it is unreadable."""
    if not mask or not mask.get("counts"):
        return None
    try:
        full = decode_mask(mask).astype(np.uint8)
    except (ValueError, TypeError, KeyError):
        return None
    if full.size == 0:
        return None
    return cast(BoolMask, cv2.resize(full, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool))


def _draw_box(
    canvas: NDArray[np.uint8],
    box: Sequence[float],
    scale: tuple[float, float],
    color: tuple[int, int, int],
    number: int,
) -> None:
    height, width = canvas.shape[:2]
    x0 = int(np.clip(round(box[0] * scale[0]), 0, width - 1))
    y0 = int(np.clip(round(box[1] * scale[1]), 0, height - 1))
    x1 = int(np.clip(round(box[2] * scale[0]) - 1, x0, width - 1))
    y1 = int(np.clip(round(box[3] * scale[1]) - 1, y0, height - 1))
    cv2.rectangle(canvas, (x0, y0), (x1, y1), color, 2)
    text = str(number)
    size = 15
    tag = size if len(text) == 1 else size + 7
    # The tag stays inside the frame, also for a box at the right edge.
    left, top = min(x0, width - tag), min(y0, height - size)
    cv2.rectangle(canvas, (left, top), (left + tag, top + size), color, cv2.FILLED)
    cv2.putText(
        canvas, text, (left + 4, top + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (16, 20, 24), 1, cv2.LINE_AA
    )
