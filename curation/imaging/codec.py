"""Encode and decode pictures and masks, and compute boxes. Pictures are (height, width, channels) uint8."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from curation.rows.schema import EncodedImage, EncodedMask

RGB = NDArray[np.uint8]
BoolMask = NDArray[np.bool_]

JPEG_QUALITY = 95
WEBP_QUALITY = 95  # OpenCV encodes without loss above 100


def encode_image(image: NDArray[np.uint8]) -> EncodedImage:
    """Encode a picture as JPEG (3 channels), WebP (4 channels, with transparency) or PNG (grey, lossless).

    Raises:
        ValueError: OpenCV cannot encode the picture.
    """
    if image.ndim == 2:
        ok, data = cv2.imencode(".png", image)
    elif image.shape[2] == 4:
        ok, data = cv2.imencode(
            ".webp", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY]
        )
    else:
        ok, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
    if not ok:
        raise ValueError(f"cannot encode a picture of shape {image.shape}")
    return {"bytes": data.tobytes(), "path": None}


def decode_image(image: EncodedImage | None) -> RGB:
    """Decode a picture to (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey.

    Raises:
        ValueError: there are no bytes, or they are not a picture.
    """
    if image is None or not image["bytes"]:
        raise ValueError("the picture's bytes were freed")
    array = cv2.imdecode(np.frombuffer(image["bytes"], np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("the bytes are no picture")
    if array.ndim == 2:
        return cast(RGB, array)
    code = cv2.COLOR_BGRA2RGBA if array.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cast(RGB, cv2.cvtColor(array, code))


def encode_mask(mask: BoolMask) -> EncodedMask:
    """Encode a mask, (H, W) bool, as COCO run-length encoding."""
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_mask(mask: EncodedMask) -> BoolMask:
    """Decode COCO run-length encoding to a mask, (H, W) bool."""
    rle: Any = {"size": mask["size"], "counts": mask["counts"].encode("ascii")}
    return cast(BoolMask, coco.decode(rle).astype(bool))


def get_mask_box(mask: BoolMask) -> list[float] | None:
    """Return the tight box around a mask, xyxy px, right and bottom exclusive; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def clamp_box(box: list[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Round a box outwards to whole pixels inside the frame, at least one pixel large."""
    x0 = int(np.clip(np.floor(box[0]), 0, width - 1))
    y0 = int(np.clip(np.floor(box[1]), 0, height - 1))
    x1 = int(np.clip(np.ceil(box[2]), x0 + 1, width))
    y1 = int(np.clip(np.ceil(box[3]), y0 + 1, height))
    return x0, y0, x1, y1


def pad_box(box: list[float], share: float, width: int, height: int) -> tuple[int, int, int, int]:
    """Widen a box on each side by a share of its own width and height, inside the frame."""
    dx, dy = (box[2] - box[0]) * share, (box[3] - box[1]) * share
    return clamp_box([box[0] - dx, box[1] - dy, box[2] + dx, box[3] + dy], width, height)


def compute_luma(image: RGB) -> NDArray[np.uint8]:
    """Compute the Rec. 601 luma of an RGB(A) picture, (H, W) uint8."""
    if image.ndim == 2:
        return image
    code = cv2.COLOR_RGBA2GRAY if image.shape[2] == 4 else cv2.COLOR_RGB2GRAY
    return cast(NDArray[np.uint8], cv2.cvtColor(image, code))


def compute_box_iou(left: list[float], right: list[float]) -> float:
    """Compute the intersection over union of two xyxy boxes, 0..1."""
    width = min(left[2], right[2]) - max(left[0], right[0])
    height = min(left[3], right[3]) - max(left[1], right[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    area_left = (left[2] - left[0]) * (left[3] - left[1])
    area_right = (right[2] - right[0]) * (right[3] - right[1])
    return float(inter / (area_left + area_right - inter))
