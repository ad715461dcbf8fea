"""Backdrops of the demo videos, composed of scikit-image's photographs (licences: see ``cutouts``).

A **backdrop** is one flat picture, ``MARGIN`` times as wide and as high as the frame. The camera of a shot is
a window that pans and zooms over it, so its motion is exactly a similarity. An **occluder** is an RGBA
picture of the same size that is in front of the subjects and moves with the backdrop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, cast

import cv2
import numpy as np

from curation.demo.cutouts import F32, U8, load_photo

MARGIN: Final = 1.36
Colour = tuple[float, float, float]


def get_canvas_size(width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) of the backdrop for a frame of ``width`` x ``height``, px."""
    return round(width * MARGIN), round(height * MARGIN)


# ---- pieces --------------------------------------------------------------------------------------


def _cover_canvas(image: U8, width: int, height: int) -> U8:
    """Resize ``image`` so that it covers ``width`` x ``height`` px, and crop the middle."""
    h, w = image.shape[:2]
    scale = max(width / w, height / h)
    size = (max(width, round(w * scale)), max(height, round(h * scale)))
    big = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(big[y : y + height, x : x + width])


def _tint_grey(image: U8, *colours: Colour) -> U8:
    """Colour a grey photograph: its darkest tone becomes the first colour, its lightest the last."""
    grey = image.mean(axis=2)
    low, high = np.percentile(grey, (1, 99))
    tone = np.clip((grey - low) / (high - low), 0, 1) * (len(colours) - 1)
    table = np.array(colours, np.float64)
    channels = [np.interp(tone, np.arange(len(colours)), table[:, c]) for c in range(3)]
    return np.round(np.dstack(channels)).astype(np.uint8)


def _tile_image(image: U8, width: int, height: int, scale: float) -> U8:
    """Fill ``width`` x ``height`` with copies of ``image`` at ``scale``; mirrored copies hide the seams."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(scale)
    source = image
    if scale < 1:  # remap does not average, so the image is reduced first
        source = cast(U8, cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        x, y = x * np.float32(scale), y * np.float32(scale)
    return cast(U8, cv2.remap(source, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _project_ground(image: U8, width: int, height: int, haze: Colour, *, grain: float = 1.0) -> U8:
    """Project ``image`` to a ground plane from the lower edge to the horizon, where it fades into ``haze``.

    ``grain`` is the size of the texture at the lower edge, 1 = one texture pixel per pixel.
    """
    over = 2  # supersampling, because far rows map many texture pixels to one
    y, x = np.mgrid[0 : height * over, 0 : width * over].astype(np.float32)
    near = (y + 0.5) / (height * over)
    depth = 1.12 / (0.12 + near)
    u = (x - width * over / 2) / over * depth / grain + image.shape[1] / 2
    v = -(depth - 1) * height * 0.9 / grain
    plane = cv2.remap(image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    plane = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    veil = np.exp(-np.linspace(0, 6, height, dtype=np.float32))[:, None, None]
    return cast(U8, np.round(plane * (1 - veil) + np.array(haze, np.float32) * veil).astype(np.uint8))


def _stack_images(upper: U8, lower: U8) -> U8:
    return np.ascontiguousarray(np.vstack([upper, lower]))


def _apply_light(image: U8, x: float, y: float, reach: float, low: float) -> U8:
    """Apply a soft light around (x, y), shares of the picture; it is ``low`` beyond ``reach`` diagonals."""
    h, w = image.shape[:2]
    yy, xx = np.mgrid[0:h, 0:w].astype(np.float32)
    away = np.hypot(xx - x * w, yy - y * h) / (reach * np.hypot(w, h))
    gain = low + (1 - low) * np.exp(-(away**2))
    return cast(U8, np.clip(image * gain[..., None], 0, 255).astype(np.uint8))


_BRICK_RED: Final[tuple[Colour, ...]] = ((70, 38, 32), (160, 92, 74), (206, 168, 148))
_BRICK_PALE: Final[tuple[Colour, ...]] = ((96, 104, 104), (176, 184, 180), (226, 228, 220))


def _draw_wall(width: int, height: int, tones: tuple[Colour, ...], scale: float = 0.75) -> U8:
    """Draw the brick wall in front view. The photograph is rotated and was taken at an angle."""
    bricks = np.ascontiguousarray(np.rot90(load_photo("brick.png")))
    corners = np.array([(0, 101), (511, 18), (511, 476), (0, 424)], np.float32)  # along two joints
    square = np.array([(0, 0), (599, 0), (599, 389), (0, 389)], np.float32)
    homography = cv2.getPerspectiveTransform(corners, square)
    bricks = cast(U8, cv2.warpPerspective(bricks, homography, (600, 390), flags=cv2.INTER_CUBIC))
    return _tint_grey(_tile_image(bricks, width, height, scale), *tones)


def _draw_skyline(width: int, height: int) -> U8:
    """Draw the background of the cameraman photograph: sky, towers, trees, tinted as on a clear afternoon."""
    strip = load_photo("camera.png")[60:236, 340:512]
    # The mirror axis is off centre, so that the picture is not symmetric.
    strip = np.ascontiguousarray(np.hstack([strip[:, ::-1], strip, strip[:, ::-1]])[:, 110:450])
    view = _tint_grey(strip, (58, 74, 70), (128, 158, 178), (186, 210, 228))
    size = (width, round(width * view.shape[0] / view.shape[1]))
    view = cast(U8, cv2.resize(view, size, interpolation=cv2.INTER_CUBIC))
    if size[1] < height:
        view = cast(U8, cv2.copyMakeBorder(view, height - size[1], 0, 0, 0, cv2.BORDER_REPLICATE))
    view = view[-height:]
    return cast(U8, cv2.GaussianBlur(view, (0, 0), 1.6))  # a far background is out of focus


def _draw_stars(width: int, height: int) -> U8:
    return _cover_canvas(load_photo("hubble_deep_field.jpg"), width, height)


# ---- places --------------------------------------------------------------------------------------


def _draw_moonscape(width: int, height: int) -> U8:
    sky = int(height * 0.42)
    dust = _tint_grey(load_photo("moon.png"), (52, 52, 56), (128, 127, 126), (214, 212, 206))
    ground = _project_ground(dust, width, height - sky, (70, 70, 74), grain=1.6)
    return _stack_images(_draw_stars(width, sky), _apply_light(ground, 0.5, 0.6, 0.7, 0.55))


def _draw_planet(width: int, height: int) -> U8:
    """Draw stars, and the red disc of a retina as a planet."""
    space = _draw_stars(width, height).astype(np.float32)
    eye = load_photo("retina.jpg")
    disc = round(min(width, height) * 0.62)
    small = cv2.resize(eye, (disc, disc), interpolation=cv2.INTER_AREA).astype(np.float32)
    y, x = np.mgrid[-1 : 1 : disc * 1j, -1 : 1 : disc * 1j].astype(np.float32)
    radius = np.hypot(x, y)
    edge = np.clip((0.93 - radius) * disc / 4, 0, 1)[..., None]
    shade = np.clip(0.9 - 0.55 * x - 0.35 * y - 0.5 * radius**4, 0.06, 1.1)[..., None]
    left, top = round(width * 0.56), round(height * 0.06)
    patch = space[top : top + disc, left : left + disc]
    rows, columns = patch.shape[:2]
    edge, small, shade = edge[:rows, :columns], small[:rows, :columns], shade[:rows, :columns]
    patch[:] = patch * (1 - edge) + small * shade * np.array([1.0, 0.82, 0.72], np.float32) * edge
    return np.clip(space, 0, 255).astype(np.uint8)


def _draw_street(width: int, height: int) -> U8:
    wall = int(height * 0.56)
    road = _tint_grey(load_photo("gravel.png"), (62, 60, 58), (128, 124, 118), (188, 184, 176))
    ground = _project_ground(road, width, height - wall, (92, 86, 80), grain=1.1)
    return _apply_light(_stack_images(_draw_wall(width, wall, _BRICK_PALE), ground), 0.45, 0.45, 0.8, 0.5)


def _draw_meadow(width: int, height: int) -> U8:
    sky = int(height * 0.46)
    turf = _tint_grey(load_photo("grass.png"), (38, 62, 22), (96, 136, 52), (182, 204, 112))
    return _stack_images(
        _draw_skyline(width, sky), _project_ground(turf, width, height - sky, (108, 140, 92), grain=1.5)
    )


def _draw_lawn(width: int, height: int) -> U8:
    """Draw grass from above."""
    turf = _tint_grey(load_photo("grass.png"), (30, 56, 20), (84, 126, 46), (170, 196, 100))
    return _apply_light(_tile_image(turf, width, height, 1.3), 0.4, 0.4, 0.8, 0.55)


def _draw_table(width: int, height: int) -> U8:
    """Draw a table top from the wood beside the saucer, cooler and paler than the red of the cup."""
    # The picture is rotated until the grain is horizontal, so that mirrored copies join without a seam.
    turn = cv2.getRotationMatrix2D((50, 300), -38, 1)
    turned = cast(U8, cv2.warpAffine(load_photo("coffee.png"), turn, (600, 600), flags=cv2.INTER_CUBIC))
    plank = turned[372:486, 480:584].astype(np.float32).mean(axis=2)
    even = plank / cv2.GaussianBlur(plank, (0, 0), 14)  # removes the lamp, which every copy would repeat
    long = cv2.resize(np.clip(even * 128, 0, 255), None, fx=2.2, fy=1, interpolation=cv2.INTER_CUBIC)
    boards = _tint_grey(long.astype(np.uint8)[..., None], (104, 80, 60), (150, 118, 88), (190, 160, 124))
    wood = _tile_image(boards, width, height, 2.3 * width / 870)
    return _apply_light(wood, 0.35, 0.3, 0.8, 0.6)


def _draw_desk(width: int, height: int) -> U8:
    """Draw a printed page, close up."""
    page = load_photo("page.png")[8:176, 10:370]
    sheet = _tint_grey(np.ascontiguousarray(page), (44, 52, 78), (206, 208, 206), (240, 238, 230))
    return _apply_light(_cover_canvas(sheet, width, height), 0.5, 0.4, 0.9, 0.65)


def _draw_hall(width: int, height: int) -> U8:
    """Draw a tiled floor in front of a brick wall."""
    wall = int(height * 0.5)
    tiles = _tint_grey(load_photo("chessboard_GRAY.png"), (66, 84, 92), (206, 212, 206))
    tiles = cast(U8, cv2.GaussianBlur(tiles, (0, 0), 0.8))
    floor = _project_ground(tiles, width, height - wall, (120, 130, 130), grain=3.4)
    return _apply_light(_stack_images(_draw_wall(width, wall, _BRICK_RED, 0.6), floor), 0.55, 0.5, 0.8, 0.55)


def _draw_garage(width: int, height: int) -> U8:
    """Draw the wall behind the motorcycle from the part without the motorcycle."""
    corner = np.ascontiguousarray(load_photo("motorcycle_left.png")[0:176, 0:330])
    return cast(U8, cv2.GaussianBlur(_cover_canvas(corner, width, height), (0, 0), 1.4))


def _draw_launch_pad(width: int, height: int) -> U8:
    """Draw the launch pad at dusk without its rocket, which is filled with the sky on both sides."""
    image: F32 = load_photo("rocket.jpg").astype(np.float32)
    left, right = 280, 360
    mix = np.linspace(0, 1, right - left, dtype=np.float32)[None, :, None]
    a = cv2.GaussianBlur(image[:, left - 12 : left].mean(axis=1, keepdims=True), (1, 9), 0).reshape(-1, 3)
    b = cv2.GaussianBlur(image[:, right : right + 12].mean(axis=1, keepdims=True), (1, 9), 0).reshape(-1, 3)
    # Near the ground the right side shows a floodlight, so only the left side fills the gap there.
    low = np.clip((np.arange(len(b), dtype=np.float32) - 250) / 80, 0, 1)[:, None]
    b = b * (1 - low) + a * low
    filled = a[:, None] * (1 - mix) + b[:, None] * mix
    hide = np.zeros(image.shape[:2], np.float32)
    hide[116:409, 292:346] = 1
    soft = cv2.GaussianBlur(hide, (0, 0), 5)[:, left:right, None]
    soft[410:] = 0  # the pad itself is not changed
    image[:, left:right] = image[:, left:right] * (1 - soft) + filled * soft
    return _cover_canvas(np.round(image[:, 20:620]).astype(np.uint8), width, height)


def _draw_gravel(width: int, height: int) -> U8:
    stones = _tint_grey(load_photo("gravel.png"), (46, 50, 58), (110, 116, 124), (182, 186, 190))
    return _apply_light(_tile_image(stones, width, height, 1.2), 0.5, 0.4, 0.8, 0.55)


def _draw_bricks(width: int, height: int) -> U8:
    return _apply_light(_draw_wall(width, height, _BRICK_RED, 0.9), 0.4, 0.35, 0.8, 0.5)


def _draw_title(width: int, height: int) -> U8:
    """Draw the title card: text over the stars. No other backdrop has its own text."""
    card = (_draw_stars(width, height) * np.float32(0.55)).astype(np.uint8)
    for text, y, size, thick in (("REPRISE", 0.44, 2.2, 5), ("raw video in, subjects out", 0.60, 0.8, 2)):
        scale = size * width / 870
        (w, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, thick)
        where = ((width - w) // 2, round(height * y))
        cv2.putText(card, text, where, cv2.FONT_HERSHEY_DUPLEX, scale, (238, 236, 228), thick, cv2.LINE_AA)
    return card


_PLACES: Final[dict[str, Callable[[int, int], U8]]] = {
    "moonscape": _draw_moonscape, "stars": _draw_stars, "planet": _draw_planet, "street": _draw_street,
    "meadow": _draw_meadow,
    "lawn": _draw_lawn, "table": _draw_table, "desk": _draw_desk, "hall": _draw_hall,
    "garage": _draw_garage, "launch": _draw_launch_pad,
    "gravel": _draw_gravel, "bricks": _draw_bricks, "title": _draw_title,
}  # fmt: skip


# ---- occluders -----------------------------------------------------------------------------------


def _draw_pillar(width: int, height: int) -> U8:
    """Draw a brick pillar, right of the middle."""
    rgba = np.zeros((height, width, 4), np.uint8)
    left, wide = int(width * 0.53), int(width * 0.085)
    column = _draw_wall(wide, height, _BRICK_RED, 0.8).astype(np.float32)
    round_light = 0.45 + 0.6 * np.sin(np.linspace(0.25, 2.9, wide, dtype=np.float32))[None, :, None]
    rgba[:, left : left + wide, :3] = np.clip(column * round_light, 0, 255).astype(np.uint8)
    rgba[:, left : left + wide, 3] = 255
    return rgba


def _draw_fence(width: int, height: int) -> U8:
    """Draw two rails and posts of table wood along the lower part."""
    rgba = np.zeros((height, width, 4), np.uint8)
    wood = _draw_table(width, height)
    mask = np.zeros((height, width), np.uint8)
    for y in (0.70, 0.80):
        mask[int(height * y) : int(height * (y + 0.024))] = 255
    for x in np.arange(0.06, 1.0, 0.22):
        mask[int(height * 0.66) : int(height * 0.90), int(width * x) : int(width * (x + 0.022))] = 255
    rgba[..., :3] = (wood * np.float32(0.8)).astype(np.uint8)
    rgba[..., 3] = cv2.GaussianBlur(mask, (3, 3), 0)
    return rgba


_OCCLUDERS: Final[dict[str, Callable[[int, int], U8]]] = {"pillar": _draw_pillar, "fence": _draw_fence}


@lru_cache(maxsize=8)
def get_backdrop(name: str, width: int, height: int) -> U8:
    """Return the backdrop ``name`` for a frame of ``width`` x ``height`` px: RGB of `get_canvas_size`.

    Raises:
        KeyError: there is no such backdrop.
    """
    result = _PLACES[name](*get_canvas_size(width, height))
    result.setflags(write=False)
    return result


@lru_cache(maxsize=4)
def get_occluder(name: str, width: int, height: int) -> F32:
    """Return the occluder ``name``: premultiplied RGBA, float32, 0..255, of `get_canvas_size`.

    Raises:
        KeyError: there is no such occluder.
    """
    rgba = _OCCLUDERS[name](*get_canvas_size(width, height)).astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    rgba.setflags(write=False)
    return rgba


PLACES: Final = tuple(_PLACES)
OCCLUDERS: Final = tuple(_OCCLUDERS)
