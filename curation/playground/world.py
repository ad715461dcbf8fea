"""The things of the playground: 64 things, named by a colour and a shape, and people with faces.

A **thing** is a shape (`OUTLINES`) filled with a colour and a texture; its name is "red star". A **person**
is a drawn figure whose head can turn (`Gaze`), so the direction of its gaze is known. All functions are pure:
they read no files and have no state, and no random state is global.

Coordinates: shapes are in a unit square, x and y in -1..1, y downwards. `CanvasPlacement` maps that square to
a canvas. Colours are floats, 0..1 (RGB); alpha is the covered share of a pixel, 0..1.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
RGBFloat = tuple[float, float, float]
Texture = Literal["plain", "stripes", "dots", "checks", "shaded"]

# name -> hue in degrees; jitter cannot change one hue into another.
HUES: Final[Mapping[str, float]] = {
    "red": 0, "orange": 27, "yellow": 55, "green": 120, "cyan": 183, "blue": 225, "purple": 275, "pink": 323,
}  # fmt: skip
COLOURS: Final = tuple(HUES)
SHAPES: Final = ("disc", "square", "triangle", "star", "ring", "cross", "heart", "crescent")
NAMES: Final = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
PERSON: Final = "person"
TEXTURES: Final[tuple[Texture, ...]] = ("plain", "stripes", "dots", "checks", "shaded")

_SUPERSAMPLE: Final = 4  # subpixels per pixel and axis when an outline is filled
_FRACTION_BITS: Final = 4  # fractional bits of OpenCV's polygon corners


# ---- shapes --------------------------------------------------------------------------------------


def _make_circle(radius: float = 1.0, cx: float = 0.0, cy: float = 0.0, corners: int = 48) -> F64:
    t = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([cx + radius * np.cos(t), cy + radius * np.sin(t)], axis=1)


def _make_star() -> F64:
    t = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1)


def _make_heart() -> F64:
    # The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled to the square.
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 17, (y - 2.5) / 16], axis=1)


def _make_crescent() -> F64:
    # A disc without a second disc of radius `inner`, which is `moved` to the right.
    inner, moved = 0.78, 0.5
    x: float = (1 - inner**2 + moved**2) / (2 * moved)
    horn = math.acos(x)
    back = np.linspace(horn, 2 * np.pi - horn, 40)
    y = math.sqrt(1 - x * x)
    bite_from, bite_to = math.atan2(-y, x - moved), -math.atan2(-y, x - moved) - 2 * np.pi
    bite = np.linspace(bite_from, bite_to, 30)
    outer = np.stack([np.cos(back), np.sin(back)], axis=1)
    hollow = np.stack([moved + inner * np.cos(bite), inner * np.sin(bite)], axis=1)
    return cast(F64, np.concatenate([outer, hollow[1:-1]]) + np.array([0.3, 0.0]))


def _make_polygon(*corners: tuple[float, float]) -> F64:
    return np.array(corners, np.float64)


_ARM: Final = 0.36
# shape -> closed outlines in the unit square, filled even-odd: an area inside two of them is a hole.
OUTLINES: Final[Mapping[str, tuple[F64, ...]]] = {
    "disc": (_make_circle(0.95),),
    "square": (_make_polygon((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),),
    "triangle": (_make_polygon((0, -0.95), (0.95, 0.75), (-0.95, 0.75)),),
    "star": (_make_star(),),
    "ring": (_make_circle(0.97), _make_circle(0.52)),
    "cross": (
        _make_polygon(
            (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
            (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
        ),
    ),
    "heart": (_make_heart(),),
    "crescent": (_make_crescent(),),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CanvasPlacement:
    """The place of the unit square: its centre and half its side in pixels, its turn in degrees clockwise."""

    x: float
    y: float
    half: float
    turn: float = 0.0

    def map_to_pixels(self, points: F64) -> F64:
        """Map (n, 2) unit coordinates to (n, 2) pixels."""
        c, s = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        turned = points @ np.array([[c, s], [-s, c]])
        return cast(F64, turned * self.half + np.array([self.x, self.y]))

    def map_to_unit(self, width: int, height: int) -> tuple[F32, F32]:
        """Return the unit coordinates (u, v) of the centres of a canvas's pixels, each (height, width)."""
        c, s = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        x = (np.arange(width, dtype=np.float32) + 0.5 - self.x)[None, :] / self.half
        y = (np.arange(height, dtype=np.float32) + 0.5 - self.y)[:, None] / self.half
        return (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)


def compute_coverage(outlines: tuple[F64, ...], where: CanvasPlacement, width: int, height: int) -> F32:
    """Compute the share of each pixel that the filled outlines cover: (height, width), 0..1."""
    corners = [where.map_to_pixels(outline) for outline in outlines]
    return fill_polygons(corners, width, height)


def fill_polygons(corners: list[F64], width: int, height: int) -> F32:
    """Fill closed outlines, each (n, 2) in pixels, even-odd; return the coverage (height, width), 0..1."""
    k = _SUPERSAMPLE
    fine = np.zeros((height * k, width * k), np.uint8)
    # OpenCV's integer coordinates are pixel centres, ours are edges, so half a subpixel is subtracted. OpenCV
    # also paints the outline itself, which adds half a subpixel on every side, 1/8 of a pixel here.
    points = [np.round((outline * k - 0.5) * (1 << _FRACTION_BITS)).astype(np.int32) for outline in corners]
    cv2.fillPoly(fine, points, 255, lineType=cv2.LINE_8, shift=_FRACTION_BITS)
    shares = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return shares.astype(np.float32) / np.float32(255)


# ---- colours and textures ------------------------------------------------------------------------


def get_colour(name: str, hue_shift: float = 0.0, saturation: float = 0.9, value: float = 0.9) -> RGBFloat:
    """Return the RGB of a named colour, 0..1; `hue_shift` is in degrees.

    Raises:
        KeyError: there is no such colour.
    """
    return colorsys.hsv_to_rgb(((HUES[name] + hue_shift) % 360) / 360, saturation, value)


def apply_texture(
    base: RGBFloat, texture: Texture, u: F32, v: F32, *, period: float = 0.5, contrast: float = 0.3
) -> F32:
    """Apply a texture to a colour over unit coordinates (h, w); return (h, w, 3), 0..1.

    A texture only darkens by up to `contrast`. It keeps the hue, which is part of the name. `period` is in
    units of half the thing's size.
    """
    if texture == "plain":
        shade = np.zeros_like(u)
    elif texture == "stripes":
        shade = 0.5 + 0.5 * np.sin(2 * np.pi * u / period)
    elif texture == "dots":
        a, b = np.mod(u, period) - period / 2, np.mod(v, period) - period / 2
        shade = np.clip(1.5 - 4 * np.hypot(a, b) / period, 0, 1)
    elif texture == "checks":
        shade = 0.5 + 0.5 * np.clip(4 * np.sin(np.pi * u / period) * np.sin(np.pi * v / period), -1, 1)
    else:
        shade = np.clip(0.5 + 0.4 * (u + v), 0, 1)
    gain = 1 - np.float32(contrast) * shade.astype(np.float32)
    return cast(F32, np.array(base, np.float32) * gain[..., None])


def draw_backdrop(width: int, height: int, rng: np.random.Generator) -> F32:
    """Draw a background without a name: greyish, textured, (height, width, 3), 0..1.

    Its saturation is below 0.2, so none of `COLOURS` fits any part of it.
    """
    tone = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.18), rng.uniform(0.25, 0.85))
    where = CanvasPlacement(
        width * rng.uniform(0.2, 0.8),
        height * rng.uniform(0.2, 0.8),
        max(width, height) / 2,
        rng.uniform(0, 360),
    )
    u, v = where.map_to_unit(width, height)
    kind = TEXTURES[int(rng.integers(len(TEXTURES)))]
    picture = apply_texture(
        tone, kind, u, v, period=float(rng.uniform(0.12, 0.9)), contrast=float(rng.uniform(0.05, 0.45))
    )
    rough = rng.normal(0, 1, (max(2, height // 8), max(2, width // 8))).astype(np.float32)
    cloud = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    return cast(
        F32, np.clip(picture * (1 + rng.uniform(0, 0.12) * cloud[..., None]), 0, 1).astype(np.float32)
    )


# ---- things --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ThingLook:
    """The look of a thing; see `get_colour` and `apply_texture`."""

    hue_shift: float = 0.0
    saturation: float = 0.9
    value: float = 0.9
    texture: Texture = "plain"
    period: float = 0.5
    contrast: float = 0.3


def sample_look(rng: np.random.Generator) -> ThingLook:
    """Sample a look within the limits in which a thing keeps its name."""
    return ThingLook(
        hue_shift=float(rng.uniform(-6, 6)),
        saturation=float(rng.uniform(0.72, 1)),
        value=float(rng.uniform(0.72, 1)),
        texture=TEXTURES[int(rng.integers(len(TEXTURES)))],
        period=float(rng.uniform(0.3, 0.8)),
        contrast=float(rng.uniform(0.15, 0.4)),
    )


def split_name(name: str) -> tuple[str, str]:
    """Split a name into colour and shape: "red star" -> ("red", "star").

    Raises:
        KeyError: no thing of this world has this name.
    """
    tint, _, shape = name.partition(" ")
    if tint not in HUES or shape not in OUTLINES:
        raise KeyError(f"nothing in the playground is called {name!r}")
    return tint, shape


def draw_thing(
    name: str, look: ThingLook, where: CanvasPlacement, width: int, height: int
) -> tuple[F32, F32]:
    """Draw a thing on an empty canvas: its paint (height, width, 3) and its coverage (height, width)."""
    tint, shape = split_name(name)
    alpha = compute_coverage(OUTLINES[shape], where, width, height)
    u, v = where.map_to_unit(width, height)
    base = get_colour(tint, look.hue_shift, look.saturation, look.value)
    return apply_texture(base, look.texture, u, v, period=look.period, contrast=look.contrast), alpha


# ---- people --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gaze:
    """The direction of a gaze, degrees: yaw > 0 to the picture's right, pitch > 0 up, roll > 0 clockwise.

    A yaw beyond 90 in either direction shows the back of the head.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    @property
    def rotation(self) -> F64:
        """Matrix (3, 3) that rotates head coordinates (x right, y down, z towards the camera)."""
        y, p, r = (math.radians(a) for a in (self.yaw, self.pitch, self.roll))
        about_y = np.array([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
        about_x = np.array([[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]])
        about_z = np.array([[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]])
        return cast(F64, about_z @ about_y @ about_x)


# Places of a head's features on its unit sphere before it turns: x right, y down, z outwards.
FEATURES: Final[Mapping[str, tuple[float, float, float]]] = {
    "left eye": (-0.38, -0.16, 0.91),
    "right eye": (0.38, -0.16, 0.91),
    "nose": (0.0, 0.14, 1.12),
    "left mouth": (-0.26, 0.5, 0.83),
    "right mouth": (0.26, 0.5, 0.83),
}
HEAD: Final = 0.40  # radius of the head's width, in half heights of the figure
_HEAD_TALL: Final = 1.18  # the head's height over its width
_HEAD_Y: Final = -0.5
SKINS: Final[tuple[RGBFloat, ...]] = (
    (0.96, 0.82, 0.71), (0.87, 0.68, 0.53), (0.72, 0.52, 0.38), (0.52, 0.36, 0.26), (0.38, 0.26, 0.19),
)  # fmt: skip
HAIRS: Final[tuple[RGBFloat, ...]] = (
    (0.10, 0.08, 0.07), (0.30, 0.19, 0.11), (0.52, 0.42, 0.30), (0.45, 0.44, 0.43), (0.36, 0.16, 0.10),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """The look of a person. The identity is everything except the clothes."""

    skin: RGBFloat = SKINS[0]
    hair: RGBFloat = HAIRS[0]
    eyes: RGBFloat = (0.1, 0.15, 0.3)
    eye_gap: float = 1.0  # factor on the distance between the eyes
    wide: float = 1.0  # factor on the head's width
    clothes: RGBFloat = (0.35, 0.35, 0.4)


def sample_body(rng: np.random.Generator) -> Figure:
    """Draw the colours and proportions of a person."""
    grey = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.35), rng.uniform(0.2, 0.8))
    return Figure(
        skin=SKINS[int(rng.integers(len(SKINS)))],
        hair=HAIRS[int(rng.integers(len(HAIRS)))],
        eyes=colorsys.hsv_to_rgb(rng.uniform(0, 0.66), rng.uniform(0.3, 0.9), rng.uniform(0.05, 0.3)),
        eye_gap=float(rng.uniform(0.85, 1.15)),
        wide=float(rng.uniform(0.9, 1.1)),
        clothes=grey,
    )


@dataclass(frozen=True, slots=True)
class FaceTruth:
    """A face in pixels. `box`: xyxy of the head without its neck. `points`: the five of `FEATURES`, (5, 2).

    `visible`: which of the five face the camera. `scale`: half the head's width in pixels.
    """

    box: tuple[float, float, float, float]
    points: F64
    visible: NDArray[np.bool_]
    gaze: Gaze
    scale: float
    centre: tuple[float, float]


def measure_face(body: Figure, gaze: Gaze, where: CanvasPlacement) -> FaceTruth:
    """Measure the head of a person and its visible features."""
    cx, cy = (float(v) for v in where.map_to_pixels(np.array([[0.0, _HEAD_Y]]))[0])
    scale = where.half * HEAD * body.wide
    tall = where.half * HEAD * _HEAD_TALL
    points = np.array(list(FEATURES.values()), np.float64)
    points[:2, 0] *= body.eye_gap
    turned = points @ gaze.rotation.T
    pixels = np.stack([cx + turned[:, 0] * scale, cy + turned[:, 1] * tall], axis=1)
    box = (cx - scale, cy - tall, cx + scale, cy + tall)
    return FaceTruth(box, pixels, turned[:, 2] > 0.12, gaze, scale, (cx, cy))


def _fill_ellipse(cx: float, cy: float, rx: float, ry: float, turn: float, width: int, height: int) -> F32:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    x, y = rx * np.cos(t), ry * np.sin(t)
    return fill_polygons([np.stack([cx + x * c - y * s, cy + x * s + y * c], axis=1)], width, height)


def draw_person(body: Figure, gaze: Gaze, where: CanvasPlacement, width: int, height: int) -> tuple[F32, F32]:
    """Draw a person on an empty canvas, head to waist: paint (height, width, 3), coverage (height, width).

    `where.turn` tilts the upright body as a whole, and the gaze turns the head on it.
    """
    face = measure_face(body, gaze, where)
    (cx, cy), sx = face.centre, face.scale
    sy = where.half * HEAD * _HEAD_TALL
    paint = np.zeros((height, width, 3), np.float32)
    whole = np.zeros((height, width), np.float32)

    def blend_layer(alpha: F32, tint: RGBFloat) -> None:
        paint[:] = paint * (1 - alpha[..., None]) + np.array(tint, np.float32) * alpha[..., None]
        np.maximum(whole, alpha, out=whole)

    torso = _make_polygon((-0.2, -0.1), (0.2, -0.1), (0.62, 0.16), (0.72, 1.0), (-0.72, 1.0), (-0.62, 0.16))
    blend_layer(compute_coverage((torso,), where, width, height), body.clothes)
    neck = _make_polygon((-0.13, -0.25), (0.13, -0.25), (0.17, 0.0), (-0.17, 0.0))
    blend_layer(
        compute_coverage((neck,), where, width, height), cast(RGBFloat, tuple(0.86 * v for v in body.skin))
    )
    head = _fill_ellipse(cx, cy, sx, sy, gaze.roll, width, height)
    blend_layer(head, body.hair)
    # The face is the front of the sphere: a skin ellipse that moves and narrows when the head turns.
    front = gaze.rotation @ np.array([0.0, 0.16, 0.55])
    facing = float((gaze.rotation @ np.array([0.0, 0.0, 1.0]))[2])
    if facing > -0.25:
        narrow = 0.5 + 0.42 * max(0.0, facing)
        skin = _fill_ellipse(
            cx + front[0] * sx, cy + front[1] * sy, sx * narrow, sy * 0.84, gaze.roll, width, height
        )
        blend_layer(np.minimum(skin, head), body.skin)
    dark = cast(RGBFloat, tuple(0.68 * v for v in body.skin))

    def draw_mark(x: float, y: float, wide: float, tall: float, tint: RGBFloat) -> None:
        """Draw a spot on the head, in shares of its half width and half height.

        It ends at the head's outline.
        """
        spot = _fill_ellipse(x, y, sx * wide, sy * tall, gaze.roll, width, height)
        blend_layer(np.minimum(spot, head), tint)

    for (x, y), seen, name in zip(face.points, face.visible, FEATURES, strict=True):
        if seen and "eye" in name:
            draw_mark(x, y, 0.2 * max(0.3, facing), 0.13, (0.97, 0.97, 0.97))
            draw_mark(x, y, 0.1, 0.1, body.eyes)
        elif seen and name == "nose":  # in profile it protrudes, so it may leave the head
            blend_layer(_fill_ellipse(x, y, sx * 0.11, sy * 0.16, gaze.roll, width, height), dark)
    if face.visible[3] or face.visible[4]:
        x, y = face.points[3:].mean(axis=0)
        reach = float(np.hypot(*(face.points[4] - face.points[3]))) / 2
        draw_mark(x, y, max(0.08, reach / sx), 0.07, (0.62, 0.18, 0.2))
    # The paint of partly covered pixels is premultiplied up to here; make it straight.
    straight = paint / np.maximum(whole, 1e-3)[..., None]
    return np.clip(straight, 0, 1).astype(np.float32), whole
