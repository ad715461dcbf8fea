"""How a picture is prepared: fitted, centred on white, scaled."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training.models.pictures import convert_to_rgb, get_fitted_size, prepare_picture

RED = (200, 30, 40)


def test_a_wide_picture_is_fitted_and_centred_between_white_bands() -> None:
    got = prepare_picture(Image.new("RGB", (400, 100), RED), 60, 80)
    assert got.shape == (3, 60, 80) and got.dtype == torch.float32
    band = (60 - 20) // 2
    assert (got[:, :band] == 1).all() and (got[:, band + 20 :] == 1).all()
    red = torch.tensor(RED, dtype=torch.float32) / 127.5 - 1
    assert torch.allclose(got[:, band : band + 20], red[:, None, None].expand(3, 20, 80))


def test_an_odd_pixel_of_white_goes_right_and_down() -> None:
    got = prepare_picture(Image.new("RGB", (10, 10), RED), 10, 13)
    assert (got[:, :, 0] == 1).all() and (got[:, :, 1] != 1).any() and (got[:, :, 11:] == 1).all()


def test_sides_are_truncated_and_a_picture_may_be_larger_or_smaller_than_the_video() -> None:
    assert get_fitted_size((100, 33), 64, 64) == (64, 21)
    assert get_fitted_size((1000, 2000), 480, 832) == (240, 480)
    assert get_fitted_size((5000, 1), 480, 832) == (832, 1)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(8, 600), st.integers(8, 600))
def test_it_always_fits_and_touches_a_side(width: int, height: int, to_height: int, to_width: int) -> None:
    w, h = get_fitted_size((width, height), to_height, to_width)
    assert 1 <= w <= to_width and 1 <= h <= to_height
    assert w >= to_width - 1 or h >= to_height - 1


def test_what_is_transparent_becomes_white_without_a_fringe() -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)  # black under full transparency
    pixels[5:15, 5:15] = (*RED, 255)
    pixels[0, 0] = (*RED, 51)
    seen = np.asarray(convert_to_rgb(Image.fromarray(pixels)))
    assert (seen[1, 1] == 255).all() and tuple(seen[10, 10]) == RED
    assert np.abs(seen[0, 0].astype(int) - (0.2 * np.array(RED) + 0.8 * 255)).max() <= 1
    got = prepare_picture(Image.fromarray(pixels), 10, 10)
    assert float(got[0].min()) > 200 / 127.5 - 1 - 0.35, "nothing of the hidden black"
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    assert (np.asarray(convert_to_rgb(palette)) == 255).all()


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_grey_of_more_than_8_bits_is_scaled(kind: str) -> None:
    grey = np.arange(256, dtype=np.float64).reshape(16, 16)
    values = grey * 257 if kind == "uint16" else grey / 255
    deep = Image.fromarray(values.astype(kind))
    memory = io.BytesIO()
    deep.save(memory, "TIFF")
    shown = np.asarray(convert_to_rgb(Image.open(memory)))
    assert (shown == grey[..., None].astype(np.uint8)).all()
