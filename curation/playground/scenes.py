"""Still pictures of the playground with exact truth: boxes, masks and visible shares.

`compose_things` is the only compositor of the playground. Pictures, clips and training scenes use it, so
truth has one meaning. A mask holds the pixels of which the thing covers at least half of the visible content.
A box is tight around the mask, xyxy in pixels, right and bottom exclusive. `share` is the visible part of the
thing's area, 0..1; parts behind other things and outside the picture are hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask, get_mask_box
from curation.playground.world import (
    COLOURS,
    F32,
    NAMES,
    PERSON,
    SHAPES,
    CanvasPlacement,
    FaceTruth,
    Figure,
    Gaze,
    ThingLook,
    draw_backdrop,
    draw_person,
    draw_thing,
    measure_face,
    sample_body,
    sample_look,
    split_name,
)  # fmt: skip

# A thing with fewer visible pixels, or a smaller visible share, has no truth: it cannot be named.
MIN_PIXELS: Final = 16
MIN_SHARE: Final = 0.2
# Heights and widths of training scenes: the aspect ratios of videos, at the models' resolution.
SIZES: Final = ((96, 96), (96, 128), (128, 96))


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing to draw. A person has a `body` and a `gaze`; another thing has a `look`."""

    name: str
    where: CanvasPlacement
    look: ThingLook = field(default_factory=ThingLook)
    body: Figure = field(default_factory=Figure)
    gaze: Gaze = field(default_factory=Gaze)

    def draw_layer(self, width: int, height: int) -> tuple[F32, F32]:
        """Paint (height, width, 3) and coverage (height, width) on an empty canvas."""
        if self.name == PERSON:
            return draw_person(self.body, self.gaze, self.where, width, height)
        return draw_thing(self.name, self.look, self.where, width, height)

    @property
    def face(self) -> FaceTruth | None:
        """Truth of a person's face; None: it is no person, or no face is visible."""
        return measure_face(self.body, self.gaze, self.where) if self.name == PERSON else None


@dataclass(frozen=True, slots=True)
class ThingTruth:
    """The truth of one thing in one picture. `mask`: (height, width); `face`: of a person."""

    name: str
    box: list[float]
    mask: BoolMask
    share: float
    face: FaceTruth | None = None


@dataclass(frozen=True, slots=True)
class ScenePicture:
    """A picture.

    `image`: (height, width, 3) RGB uint8; `seen`: things visible enough to be named, back to front.
    """

    image: RGB
    truths: tuple[ThingTruth, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name in the picture, each once."""
        return tuple(dict.fromkeys(each.name for each in self.truths))


def measure_whole_area(thing: Thing) -> float:
    """Count the pixels of the whole thing, without occlusion and without the picture's edges."""
    middle = int(np.ceil(thing.where.half * 1.5)) + 2
    side = 2 * middle
    # The position within a pixel is that in the picture, or the count at the outline would differ.
    x, y = middle + thing.where.x % 1, middle + thing.where.y % 1
    fraction = CanvasPlacement(x, y, thing.where.half, thing.where.turn)
    moved = Thing(thing.name, fraction, thing.look, thing.body, thing.gaze)
    return float((moved.draw_layer(side, side)[1] >= 0.5).sum())


def compose_things(ground: F32, things: Sequence[Thing]) -> tuple[F32, list[ThingTruth | None]]:
    """Draw things, back to front, over a background (height, width, 3).

    Returns:
        The picture as floats, 0..1, and the truth of each thing; None: its visible part is below `MIN_PIXELS`
        or `MIN_SHARE`.
    """
    height, width = ground.shape[:2]
    canvas = ground.copy()
    alphas: list[F32] = []
    for thing in things:
        # Only the part of the canvas around the thing is drawn and blended.
        reach = thing.where.half * 1.5 + 2
        x0, y0 = max(0, int(thing.where.x - reach)), max(0, int(thing.where.y - reach))
        x1, y1 = min(width, int(thing.where.x + reach) + 1), min(height, int(thing.where.y + reach) + 1)
        alpha = np.zeros((height, width), np.float32)
        if x1 > x0 and y1 > y0:
            local = CanvasPlacement(
                thing.where.x - x0, thing.where.y - y0, thing.where.half, thing.where.turn
            )
            paint, cover = Thing(thing.name, local, thing.look, thing.body, thing.gaze).draw_layer(
                x1 - x0, y1 - y0
            )
            part, keep = canvas[y0:y1, x0:x1], 1 - cover[..., None]
            part[:] = part * keep + paint * cover[..., None]
            for under in alphas:
                under[y0:y1, x0:x1] *= keep[..., 0]
            alpha[y0:y1, x0:x1] = cover
        alphas.append(alpha)
    return canvas, [_measure_truth(thing, alpha) for thing, alpha in zip(things, alphas, strict=True)]


def _measure_truth(thing: Thing, alpha: F32) -> ThingTruth | None:
    mask = alpha >= 0.5
    visible = int(mask.sum())
    box = get_mask_box(mask)
    if visible < MIN_PIXELS or box is None:
        return None
    share = min(1.0, visible / max(1.0, measure_whole_area(thing)))
    return ThingTruth(thing.name, box, mask, share, thing.face) if share >= MIN_SHARE else None


def round_to_rgb(picture: F32) -> RGB:
    """Round floats, 0..1, to uint8."""
    return cast(RGB, np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8))


def degrade_picture(picture: F32, rng: np.random.Generator) -> RGB:
    """Degrade a picture as a camera and a codec do: light, blur, noise, JPEG. The truth does not change."""
    image = np.clip(picture * rng.uniform(0.85, 1.1), 0, 1).astype(np.float32)
    if rng.uniform() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.8))).astype(np.float32)
    image = image + rng.normal(0, rng.uniform(0, 0.02), image.shape).astype(np.float32)
    shot = round_to_rgb(image.astype(np.float32))
    if rng.uniform() < 0.3:
        _, data = cv2.imencode(".jpg", shot, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 96))])
        shot = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return shot


# ---- scenes --------------------------------------------------------------------------------------


def sample_rival(name: str, rng: np.random.Generator) -> str:
    """Sample a name that is similar to another one: with the same colour or the same shape."""
    if name == PERSON:
        return NAMES[int(rng.integers(len(NAMES)))]
    tint, shape = split_name(name)
    if rng.uniform() < 0.5:
        return f"{tint} {rng.choice([s for s in SHAPES if s != shape])}"
    return f"{rng.choice([c for c in COLOURS if c != tint])} {shape}"


def sample_names(count: int, rng: np.random.Generator, people: float = 0.12) -> list[str]:
    """Sample `count` names. Half of the names after the first are rivals of an earlier one."""
    names: list[str] = []
    for _ in range(count):
        if rng.uniform() < people and PERSON not in names:
            names.append(PERSON)
        elif names and rng.uniform() < 0.5:
            names.append(sample_rival(names[int(rng.integers(len(names)))], rng))
        else:
            names.append(NAMES[int(rng.integers(len(NAMES)))])
    return names


def sample_gaze(rng: np.random.Generator) -> Gaze:
    """Sample a gaze: half frontal (within 20 degrees), a third up to profile, the rest from behind."""
    kind = rng.uniform()
    side = 1 if rng.uniform() < 0.5 else -1
    if kind < 0.5:
        yaw = rng.uniform(0, 20)
    elif kind < 0.85:
        yaw = rng.uniform(35, 90)
    else:
        yaw = rng.uniform(130, 180)
    return Gaze(float(side * yaw), float(rng.uniform(-12, 12)), float(rng.uniform(-10, 10)))


def sample_thing(name: str, where: CanvasPlacement, rng: np.random.Generator) -> Thing:
    """Draw the look of a thing or person of this name."""
    return Thing(name, where, sample_look(rng), sample_body(rng), sample_gaze(rng))


def _sample_placement(
    name: str, width: int, height: int, taken: Sequence[CanvasPlacement], rng: np.random.Generator
) -> CanvasPlacement:
    """Sample a free place; three in ten half cover a thing that is already there."""
    side = min(width, height)
    person = name == PERSON
    half = side * rng.uniform(0.22, 0.36) if person else side * rng.uniform(0.14, 0.28)
    turn = rng.uniform(-8, 8) if person else rng.uniform(-40, 40)
    over = taken[int(rng.integers(len(taken)))] if taken and rng.uniform() < 0.3 else None
    best, clearance = CanvasPlacement(width / 2, height / 2, float(half), float(turn)), -np.inf
    for _ in range(12):
        if over is None:
            x = rng.uniform(half * 0.6, width - half * 0.6)
            y = rng.uniform(half * 0.6, height - half * 0.6)
        else:
            way, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.75) * (half + over.half)
            x = np.clip(over.x + far * np.cos(way), half * 0.6, width - half * 0.6)
            y = np.clip(over.y + far * np.sin(way), half * 0.6, height - half * 0.6)
        where = CanvasPlacement(float(x), float(y), float(half), float(turn))
        gaps = [np.hypot(x - o.x, y - o.y) / (half + o.half) - 1 for o in taken if o is not over]
        gap = float(min(gaps, default=np.inf))
        if gap > clearance:
            best, clearance = where, gap
        if gap >= 0:
            break
    return best


def sample_scene(
    rng: np.random.Generator, *, width: int = 96, height: int = 96, names: Sequence[str] | None = None
) -> ScenePicture:
    """Sample a picture with 1 to 4 things (or those of `names`), some of them rivals, some half hidden."""
    wanted = sample_names(int(rng.integers(1, 5)), rng) if names is None else names
    taken: list[CanvasPlacement] = []
    things: list[Thing] = []
    for name in wanted:
        where = _sample_placement(name, width, height, taken, rng)
        taken.append(where)
        things.append(sample_thing(name, where, rng))
    canvas, truths = compose_things(draw_backdrop(width, height, rng), things)
    return ScenePicture(degrade_picture(canvas, rng), tuple(each for each in truths if each is not None))


def make_scene(seed: int, index: int, *, width: int = 96, height: int = 96) -> ScenePicture:
    """Make the scene with this number; it never changes. Training and tests use different seeds."""
    return sample_scene(np.random.default_rng([seed, index]), width=width, height=height)


def sample_prompt(present: Sequence[str], rng: np.random.Generator, most: int = 6) -> list[str]:
    """Sample names for a detector's prompt: present ones, rivals of them, and others, in random order."""
    prompt = [name for name in present if rng.uniform() < 0.85]
    prompt += [sample_rival(name, rng) for name in present if rng.uniform() < 0.7]
    others = range(int(rng.integers(1, 3)))
    prompt += [PERSON if rng.uniform() < 0.1 else NAMES[int(rng.integers(len(NAMES)))] for _ in others]
    prompt = list(dict.fromkeys(prompt))[:most]
    order: NDArray[np.int64] = rng.permutation(len(prompt))
    return [prompt[i] for i in order]
