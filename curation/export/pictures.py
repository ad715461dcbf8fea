"""Convert references to the files that a trainer reads: PNG or JPEG on the background that it needs."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from curation.imaging.codec import RGB, decode_image
from curation.imaging.cutout import composite_over
from curation.rows.schema import EncodedImage

_GREY = 127
_JPEG_QUALITY = 95
_JPEG_START = b"\xff\xd8"


def convert_picture(image: EncodedImage, format: str, background: str) -> tuple[bytes, str]:
    """Encode a reference again, or return its stored bytes.

    Args:
        image: the stored picture of a row.
        format: png or jpeg.
        background: the background of cut-outs: white, grey or transparent (only PNG). With as-is, and
            for a stored JPEG that is to be one, the stored bytes are returned.

    Returns:
        The bytes, and the extension of the file name without a dot.

    Raises:
        ValueError: the bytes are not a picture.
    """
    data = image["bytes"] or b""
    if background == "as-is" or (format == "jpeg" and data.startswith(_JPEG_START)):
        return data, _name_extension(data)
    picture = decode_image(image)
    if picture.ndim == 2:
        picture = cast(RGB, cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB))
    elif picture.shape[2] == 4 and (background != "transparent" or format == "jpeg"):
        level = _GREY if background == "grey" else 255
        picture = composite_over(picture, np.full((*picture.shape[:2], 3), level, np.uint8))
    return _encode_picture(picture, format)


def _encode_picture(picture: RGB, format: str) -> tuple[bytes, str]:
    code = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    extension = "jpg" if format == "jpeg" else "png"
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if format == "jpeg" else []
    ok, data = cv2.imencode(f".{extension}", cv2.cvtColor(picture, code), options)
    if not ok:
        raise ValueError(f"cannot encode a picture of shape {picture.shape}")
    return data.tobytes(), extension


def _name_extension(data: bytes) -> str:
    if data.startswith(_JPEG_START):
        return "jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise ValueError("the bytes are not a picture")
