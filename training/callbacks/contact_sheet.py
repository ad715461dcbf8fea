"""One page of generated videos, each beside its references and the true video."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Picture = NDArray[np.uint8]  # (H, W, 3)

THUMBNAIL_HEIGHT = 120  # of a small picture, px
THUMBNAIL_FRAMES = 6
GAP, LABEL, LINE = 6, 84, 16


@dataclass(frozen=True)
class SheetRow:
    """One sample: its caption and references, the generated frames, the true frames."""

    caption: str
    references: Sequence[Picture]
    made: Sequence[Picture]
    true: Sequence[Picture]


def make_thumbnails(video: Any, count: int = THUMBNAIL_FRAMES) -> list[Picture]:
    """Shrink `count` frames spread evenly over a video (T, H, W, 3) uint8, from the first to the last."""
    at = np.linspace(0, len(video) - 1, min(count, len(video))).round().astype(int)
    return [_shrink_image(Image.fromarray(video[index])) for index in at]


def draw_sheet(rows: Sequence[SheetRow]) -> bytes:
    """Draw a PNG; each row has two lines: references and the generated frames, then the true frames."""
    drawn = [_draw_row(row) for row in rows]
    width = max(image.width for image in drawn)
    page = Image.new("RGB", (width, sum(image.height + GAP for image in drawn)), "white")
    top = 0
    for image in drawn:
        page.paste(image, (0, top))
        top += image.height + GAP
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_row(row: SheetRow) -> Image.Image:
    first = [Image.fromarray(picture) for picture in row.references]
    lines = [
        ("generated", [Image.fromarray(picture) for picture in row.made]),
        ("true", [Image.fromarray(picture) for picture in row.true]),
    ]
    left = sum(image.width + GAP for image in first) + (GAP if first else 0)
    right = max(sum(image.width + GAP for image in images) for _, images in lines)
    width = LABEL + left + right
    caption = textwrap.wrap(row.caption, max(20, width // 7))[:3]
    head = LINE * len(caption) + GAP
    image = Image.new("RGB", (width, head + len(lines) * (THUMBNAIL_HEIGHT + GAP)), "white")
    pen = ImageDraw.Draw(image)
    for number, text in enumerate(caption):
        pen.text((GAP, number * LINE), text, fill="black")
    x = LABEL
    for picture in first:
        image.paste(picture, (x, head))
        x += picture.width + GAP
    for number, (name, pictures) in enumerate(lines):
        top = head + number * (THUMBNAIL_HEIGHT + GAP)
        pen.text((GAP, top + THUMBNAIL_HEIGHT // 2), name, fill="gray")
        x = LABEL + left
        for picture in pictures:
            image.paste(picture, (x, top))
            x += picture.width + GAP
    return image


def _shrink_image(image: Image.Image) -> Picture:
    width = max(1, round(image.width * THUMBNAIL_HEIGHT / image.height))
    return np.asarray(image.resize((width, THUMBNAIL_HEIGHT), Image.Resampling.LANCZOS))
