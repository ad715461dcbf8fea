"""Convert an item to the pixels that the encoders take. Pure functions of bytes, without model or cluster."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from reprise.errors import RepriseError
from reprise.video.cover import compute_cover
from training.data.samples import FRAME_VARIANT
from training.latents.buckets import SizeBuckets, get_latent_size
from training.latents.config import EncodeConfig
from training.latents.sources.source import EncodeItem, SubjectPicture
from training.latents.video import DecodedClip, DroppedItemError, read_clip
from training.models.pictures import (
    centre_on_white,
    convert_to_rgb,
    convert_to_tensor,
    get_fitted_size,
    prepare_picture,
)


@dataclass(frozen=True)
class PreparedItem:
    """The inputs of the encoders, and the row of the index."""

    row: dict[str, Any]  # all columns except `key`, `shard` and `text_tokens`
    frames: NDArray[np.uint8]  # (T, H, W, 3) RGB
    pictures: tuple[Tensor, ...]  # (3, H_i, W_i) in [-1, 1], by position
    names: tuple[str, ...]  # of the pictures


def prepare_item(item: EncodeItem, buckets: SizeBuckets, config: EncodeConfig, spatial: int) -> PreparedItem:
    """Decode an item, and resize and crop its video and its references to one bucket.

    Args:
        item: the item.
        buckets: sizes and lengths of the model.
        config: the settings.
        spatial: pixels per latent pixel.

    Raises:
        DroppedItemError: the item cannot be encoded; it has the reason.
    """
    clip = _read_still(_read_bytes(item), buckets) if item.still else read_clip(_open_media(item), buckets)
    frames, height, width = clip.frames.shape[:3]
    pictures: list[Tensor] = []
    names: list[str] = []
    left_out: list[str] = []
    subjects: dict[str, dict[str, Any]] = {}

    def add_reference(
        subject_id: str, category: str, reference_id: str, variant: str, pixels: Tensor
    ) -> None:
        subject = {"subject_id": subject_id, "category": category, "references": []}
        described = {
            "reference_id": reference_id,
            "variant": variant,
            "position": len(pictures),
            "height": pixels.shape[1] // spatial,
            "width": pixels.shape[2] // spatial,
        }
        subjects.setdefault(subject_id, subject)["references"].append(described)
        pictures.append(pixels)
        names.append(reference_id)

    if item.still and config.pairs.alpha == "required" and not all(_has_alpha(p) for p in item.pictures):
        raise DroppedItemError("no alpha", "the reference has no transparency, and pairs.alpha is required")
    for picture in item.pictures:
        try:
            pixels = _prepare_reference(picture, height, width, buckets.grid.multiple, config.references.size)
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
            left_out.append(picture.reference_id)
            continue
        add_reference(picture.subject_id, picture.category, picture.reference_id, picture.variant, pixels)
    if item.pictures and not pictures and config.references.required:
        raise DroppedItemError("no usable reference", "none of its pictures can be read")
    for number in _space_evenly(frames, config.frames_alone):
        pixels = convert_to_tensor(Image.fromarray(clip.frames[number]))
        add_reference(
            f"{item.sample_id}-frames",
            FRAME_VARIANT,
            f"{item.sample_id}-frame{number}",
            FRAME_VARIANT,
            pixels,
        )
    size = get_latent_size(frames, height, width, buckets.grid.temporal, spatial)
    row = {
        "sample_id": item.sample_id,
        "source_id": item.source_id,
        "frames": size[0],
        "height": size[1],
        "width": size[2],
        "video_frames": frames,
        "video_height": height,
        "video_width": width,
        "fps": clip.fps,
        "caption": item.caption,
        "subjects": list(subjects.values()),
        "left_out": left_out,
    }
    return PreparedItem(row, clip.frames, tuple(pictures), tuple(names))


def _prepare_reference(picture: SubjectPicture, height: int, width: int, multiple: int, size: str) -> Tensor:
    image: Image.Image = Image.open(io.BytesIO(picture.data))
    if size == "own":
        # The canvas has the size of the fitted picture, rounded up to whole patches. The sides of the video
        # are such multiples, so the canvas is never larger than the video.
        image = convert_to_rgb(image)
        fitted = get_fitted_size(image.size, height, width)
        width, height = (-(-side // multiple) * multiple for side in fitted)
        image = image.resize(fitted, Image.Resampling.LANCZOS)
        return convert_to_tensor(centre_on_white(image, height, width))
    return prepare_picture(image, height, width)


def _has_alpha(picture: SubjectPicture) -> bool:
    try:
        image = Image.open(io.BytesIO(picture.data))
    except (UnidentifiedImageError, OSError):
        return True  # reported as unreadable later
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _read_still(data: bytes, buckets: SizeBuckets) -> DecodedClip:
    """Read a picture as a video of one frame, resized and cropped to its bucket."""
    try:
        image = convert_to_rgb(Image.open(io.BytesIO(data)))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DroppedItemError("unreadable", str(error)) from error
    size = buckets.choose_size(image.height, image.width)
    if isinstance(size, str):
        raise DroppedItemError(size, f"{size}: a picture of {image.width}x{image.height} fits no bucket")
    (height, width), (top, left) = compute_cover(size, image.height, image.width)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    image = image.crop((left, top, left + size[1], top + size[0]))
    return DecodedClip(np.array(image, np.uint8)[None], 0.0, 0.0)


def _open_media(item: EncodeItem) -> Any:
    """Return a local path, of which FFmpeg reads only what it needs, or the bytes of a remote file."""
    if isinstance(item.media, tuple):
        folder, rel = item.media
        path = folder.get_local_path(rel)
        if path is not None:
            if not path.is_file():
                raise DroppedItemError("missing file", f"no such file: {path}")
            return path
        return _read_bytes(item)
    return item.media


def _read_bytes(item: EncodeItem) -> bytes:
    if isinstance(item.media, bytes):
        return item.media
    if not isinstance(item.media, tuple):
        return item.media.read_bytes()
    folder, rel = item.media
    try:
        return folder.read_bytes(rel)
    except RepriseError as error:
        raise DroppedItemError("missing file", str(error)) from error


def _space_evenly(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` different, evenly spaced numbers from 0 to count - 1, both included."""
    if not wanted:
        return []
    return sorted({round(n) for n in np.linspace(0, count - 1, min(wanted, count)).tolist()})
