"""Preparing pictures of subjects for the VAE, the same in training and generation (as released)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from reprise.errors import RepriseError

PictureSource = Image.Image | str | Path


def open_picture(picture: PictureSource) -> Image.Image:
    """Load a picture.

    Raises:
        RepriseError: there is no such file, or it is no readable picture.
    """
    if isinstance(picture, Image.Image):
        return picture
    try:
        with Image.open(picture) as opened:
            opened.load()
            return opened
    except FileNotFoundError as error:
        raise RepriseError(f"no picture at {picture}") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise RepriseError(f"{picture} is no readable picture ({type(error).__name__})") from error


def prepare_picture(image: Image.Image, height: int, width: int) -> Tensor:
    """Fit a picture into the video's size and centre it on white: (3, height, width) float32 in [-1, 1].

    The aspect ratio is kept, smaller pictures are enlarged, transparency becomes white.
    """
    return convert_to_tensor(
        centre_on_white(resize_to_fit(convert_to_rgb(image), height, width), height, width)
    )


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB of 8 bits: upright, transparency over white.

    It comes before resizing, so that no colour under full transparency bleeds into the edge.
    """
    image = convert_to_8_bit(ImageOps.exif_transpose(image))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def convert_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale grey pictures of 16 bits or of floats to 8 bits; Pillow would clip them to white.

    Whole numbers are 0..65535. Floats are 0..1 where none is larger, else 0..255 or 0..65535.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    limits = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    full = next((limit for limit in limits if top <= limit), top)
    return Image.fromarray(np.clip(np.rint(values * (255 / full)), 0, 255).astype(np.uint8))


def get_fitted_size(image: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return (width, height) px of a picture of size `image` (width, height) that fits; truncated."""
    scale = min(width / image[0], height / image[1])
    return max(1, int(image[0] * scale)), max(1, int(image[1] * scale))


def resize_to_fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resize a picture to the largest size that fits into height x width, by Lanczos."""
    size = get_fitted_size(image.size, height, width)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def centre_on_white(image: Image.Image, height: int, width: int) -> Image.Image:
    """Paste a picture on a white canvas; an odd pixel goes to the right and to the bottom."""
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def convert_to_tensor(image: Image.Image) -> Tensor:
    """Convert RGB (h, w) to (3, h, w) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)
    return pixels.to(torch.float32) / 127.5 - 1.0
