"""Conventions of boxes, masks and pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.imaging import codec


def gradient(height: int = 40, width: int = 60, channels: int = 3) -> codec.RGB:
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows * 5 % 256, columns * 4 % 256, (rows + columns) * 2 % 256, np.where(columns < 30, 255, 0)]
    return np.dstack(planes[:channels]).astype(np.uint8)


@pytest.mark.parametrize(("channels", "magic"), [(3, b"\xff\xd8"), (4, b"RIFF")])
def test_pictures_come_back_in_the_same_channel_order(channels: int, magic: bytes) -> None:
    image = gradient(channels=channels)
    encoded = codec.encode_image(image)
    assert encoded["bytes"] is not None
    assert encoded["bytes"].startswith(magic)
    decoded = codec.decode_image(encoded)
    assert decoded.shape == image.shape
    opaque = image[..., 3] == 255 if channels == 4 else np.ones(image.shape[:2], bool)
    # Lossy formats halve the resolution of colour; a swap of red and blue would be far worse than this.
    assert np.abs(decoded[opaque].astype(int) - image[opaque]).mean() < 6
    if channels == 4:
        assert (decoded[..., 3] == image[..., 3]).all(), "transparency is exact"


def test_grey_pictures_are_lossless() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)
    assert (codec.decode_image(codec.encode_image(image)) == image).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "freed"),
        ({"bytes": None, "path": None}, "freed"),
        ({"bytes": b"", "path": None}, "freed"),
        ({"bytes": b"no picture", "path": None}, "no picture"),
    ],
)
def test_bytes_that_are_no_picture_are_one_line(image: codec.EncodedImage | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec.decode_image(image)


def test_a_picture_that_no_format_takes_is_refused() -> None:
    with pytest.raises((ValueError, cv2.error)):
        codec.encode_image(np.zeros((0, 5, 3), np.uint8))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.randoms(use_true_random=False))
def test_masks_survive_run_length_encoding(height: int, width: int, random: object) -> None:
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])  # type: ignore[attr-defined]
    encoded = codec.encode_mask(mask)
    assert encoded["size"] == [height, width], "rows first"
    assert encoded["counts"].isascii()
    assert (codec.decode_mask(encoded) == mask).all()


def test_the_box_of_a_mask_is_tight_with_exclusive_right_and_bottom() -> None:
    mask = np.zeros((10, 20), bool)
    mask[3:5, 7:11] = True
    assert codec.get_mask_box(mask) == [7, 3, 11, 5]
    assert codec.get_mask_box(np.ones((10, 20), bool)) == [0, 0, 20, 10]
    assert codec.get_mask_box(np.zeros((10, 20), bool)) is None
    x0, y0, x1, y1 = codec.clamp_box([7, 3, 11, 5], 20, 10)
    assert mask[y0:y1, x0:x1].all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-500, 500), min_size=4, max_size=4), st.integers(1, 300), st.integers(1, 300))
def test_a_clamped_box_always_holds_a_pixel_of_the_frame(box: list[float], width: int, height: int) -> None:
    x0, y0, x1, y1 = codec.clamp_box(box, width, height)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


def test_a_clamped_box_covers_every_pixel_that_the_box_touches() -> None:
    assert codec.clamp_box([1.2, 2.8, 4.1, 5.0], 10, 10) == (1, 2, 5, 5)


def test_padding_is_a_share_of_the_boxs_own_sides_and_ends_at_the_frame() -> None:
    assert codec.pad_box([40, 40, 60, 80], 0.1, 200, 200) == (38, 36, 62, 84)
    assert codec.pad_box([0, 0, 20, 20], 0.5, 25, 200) == (0, 0, 25, 30)


def test_box_iou() -> None:
    assert codec.compute_box_iou([0, 0, 10, 10], [0, 0, 10, 10]) == 1
    assert codec.compute_box_iou([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(1 / 3)
    assert codec.compute_box_iou([0, 0, 10, 10], [10, 0, 20, 10]) == 0, "touching is not overlapping"
    assert codec.compute_box_iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0


def test_luma_weighs_green_most() -> None:
    red, green, blue = (
        codec.compute_luma(np.eye(3, dtype=np.uint8)[i][None, None] * 255)[0, 0] for i in range(3)
    )
    assert (red, green, blue) == (76, 150, 29)
    grey = np.full((2, 2), 7, np.uint8)
    assert codec.compute_luma(grey) is grey
    assert codec.compute_luma(np.full((2, 2, 4), 7, np.uint8)).tolist() == [[7, 7], [7, 7]]
