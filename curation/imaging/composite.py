"""A cut-out subject put into another picture as if it had been there (Kaleido A.1, cross-paired samples).

Pure functions over arrays: RGB uint8 (H, W, 3), straight-alpha RGBA uint8 (H, W, 4), masks bool (H, W). What
is drawn comes from the generator that is passed in, so that equal seeds give equal pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask, get_mask_box
from curation.imaging.cutout import RGBA, composite_over, resize_cutout, soften_mask

Side = Literal["left", "top", "right", "bottom"]
F32 = NDArray[np.float32]
RelativeBox = tuple[float, float, float, float]  # xyxy, shares of the picture's width and height

_TOUCH_PX = 2  # segmenters often stop a pixel short of the border
_TOUCH_SHARE = 0.08  # of the subject's extent along a border; less is a fingertip
_RIM = 0.008  # of the subject's longer side: how deep the old background shines into its edge
_RIM_PX = (2.0, 6.0)
_BAND = 0.02  # of the subject's longer side: how far inside its outline a mask may be wrong
_BAND_PX = (3, 12)
_MIN_COLOUR_DISTANCE = (
    24.0  # levels of RGB between subject and background below which no pixel can be told apart
)
_HEIGHT_BOUNDS = (0.3, 0.9)  # bounds of the subject's height, share of the plate's
_MAX_WIDTH = 0.9  # bound of its width, share of the plate's
_HEIGHT_JITTER = (0.88, 1.14)
_RESIZE_BOUNDS = (
    0.6,
    1.5,
)  # how far knowledge of true sizes may change the size that the subject had in its own frame
_BASE_DRIFT = (-0.04, 0.06)  # of the plate's height: the ground stays about where it was
_MARGIN = 0.02  # of the plate's sides: a subject that was not cut off does not touch
_PLACE_ATTEMPTS = 24  # places looked at where something in the plate should stay visible, or be hidden

_LIGHT_SHARE = 0.5  # share of the difference between two lights that the subject is moved by
_MAX_SHIFT = (9.0, 5.0, 7.0)  # CIE Lab: brightness may follow, colours hardly (a red cup stays red)
_MAX_CONTRAST = (0.85, 1.15)

_SHADOW_OPACITY = 0.4  # its greatest opacity
_SHADOW_HEIGHT = 0.16  # height of a shadow on the ground, of the height of what throws it


@dataclass(frozen=True)
class SceneLight:
    """CIE Lab of a scene (L 0..100): mean (L, a, b), and the standard deviation of L."""

    mean: tuple[float, float, float]
    contrast: float


@dataclass(frozen=True)
class LiftedSubject:
    """A subject lifted from its frame.

    `picture`: tight RGBA crop without the old background's colour in its edge. `box`: where it was, shares of
    the frame. `aspect`: width / height of that frame. `borders`: where the frame cut it off. `light`: of the
    frame around it.
    """

    picture: RGBA
    box: RelativeBox
    aspect: float
    borders: frozenset[Side]
    light: SceneLight


@dataclass(frozen=True)
class PlatePlacement:
    """`window` of the plate that is used, and the box of the subject in that window; whole pixels, xyxy."""

    window: tuple[int, int, int, int]
    box: tuple[int, int, int, int]


def lift_subject(image: RGB, mask: BoolMask, feather: float = 1.5) -> LiftedSubject:
    """Cut the masked subject out; `feather` is the width in pixels of its soft edge.

    Raises:
        ValueError: the mask is empty.
    """
    box = get_mask_box(mask)
    if box is None:
        raise ValueError("the mask is empty")
    x0, y0, x1, y1 = (int(side) for side in box)
    height, width = mask.shape
    band = int(np.clip(_BAND * max(x1 - x0, y1 - y0), *_BAND_PX))
    # With some of what surrounds it, to know what the old background looks like.
    px, py = max(0, x0 - 3 * band), max(0, y0 - 3 * band)
    near = (slice(py, min(height, y1 + 3 * band)), slice(px, min(width, x1 + 3 * band)))
    picture = remove_halo(image[near], mask[near], estimate_opacity(image[near], mask[near], band), feather)
    around = ~mask
    return LiftedSubject(
        picture=np.ascontiguousarray(picture[y0 - py : y1 - py, x0 - px : x1 - px]),
        box=(x0 / width, y0 / height, x1 / width, y1 / height),
        aspect=width / height,
        borders=find_cut_borders(mask),
        light=measure_light(image, around if around.mean() > 0.05 else None),
    )


def estimate_opacity(image: RGB, mask: BoolMask, band: int) -> F32:
    """(H, W) opacity 0..1 that leaves out what a mask took along of the background just inside its outline.

    Within `band` px of the outline a pixel is taken for a mixture of the subject's colour deeper inside and
    the background's outside, both averaged nearby; its share of the subject is its opacity. Where the two are
    alike, the mask is believed.
    """
    opaque = mask.astype(np.uint8)
    depth = cv2.distanceTransform(opaque, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    core = depth > band
    if not core.any() or mask.all():
        return mask.astype(np.float32)
    # A soft outline outside the mask is neither.
    outside = cv2.dilate(opaque, np.ones((3, 3), np.uint8)) == 0
    colour = image.astype(np.float32)
    front, front_weight = _average_nearby(colour, core, band)
    back, back_weight = _average_nearby(colour, outside, band)
    difference = front - back
    distance = (difference**2).sum(axis=2)
    share = ((colour - back) * difference).sum(axis=2) / np.maximum(distance, 1)
    distinct = (distance > _MIN_COLOUR_DISTANCE**2) & (front_weight > 1e-3) & (back_weight > 1e-3) & ~core
    share = np.where(distinct, np.clip((share - 0.1) / 0.5, 0, 1), 1).astype(np.float32)
    # Texture looks like a mixture, too: only what is so for several pixels counts.
    share = np.where(core, 1, cv2.GaussianBlur(share, (0, 0), 1.2))
    return cast(F32, (share * mask).astype(np.float32))


def _average_nearby(colour: F32, where: BoolMask, reach: float) -> tuple[F32, F32]:
    """Mean colour of the pixels in `where`, weighted by nearness, and the sum of those weights."""
    weight = where.astype(np.float32)
    total = cv2.GaussianBlur(weight, (0, 0), reach)
    summed = cv2.GaussianBlur(colour * weight[..., None], (0, 0), reach)
    return cast(F32, summed / np.maximum(total, 1e-6)[..., None]), cast(F32, total)


def find_cut_borders(mask: BoolMask) -> frozenset[Side]:
    """The borders of the frame that the subject runs into, so that more of it lies beyond."""
    box = get_mask_box(mask)
    if box is None:
        return frozenset()
    wide, tall = box[2] - box[0], box[3] - box[1]
    along: dict[Side, tuple[Any, float]] = {
        "left": (mask[:, :_TOUCH_PX].any(axis=1), tall),
        "right": (mask[:, -_TOUCH_PX:].any(axis=1), tall),
        "top": (mask[:_TOUCH_PX].any(axis=0), wide),
        "bottom": (mask[-_TOUCH_PX:].any(axis=0), wide),
    }
    return frozenset(side for side, (line, extent) in along.items() if line.sum() >= _TOUCH_SHARE * extent)


def remove_halo(image: RGB, mask: BoolMask, opacity: F32, feather: float) -> RGBA:
    """RGBA with a soft edge in which the subject's own colour is carried outwards, so that no halo remains.

    Near its outline a subject's pixels are mixed with what was behind it. Within a rim, colour is taken from
    the nearest pixel deeper inside; parts that are thinner than the rim (hair, spokes) keep theirs.

    Args:
        opacity: (H, W) 0..1, as `trim` finds it.
        feather: width of the soft edge, px.
    """
    # Rounded, as masks have steps; as if it went on beyond the picture, whose own border is no outline.
    smooth = cv2.GaussianBlur(opacity, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE) > 0.5
    smooth &= mask
    if not smooth.any():
        smooth = mask
    alpha = np.minimum(soften_mask(smooth, feather), np.maximum(opacity, 0.02))
    depth = cv2.distanceTransform(smooth.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    rim = float(np.clip(_RIM * longest, *_RIM_PX))
    core = depth > rim
    colour = image.astype(np.float32)
    if core.any():
        distance, nearest = cv2.distanceTransformWithLabels(
            (~core).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        palette = np.zeros((int(nearest.max()) + 1, 3), np.float32)
        palette[nearest[core]] = colour[core]
        # Nearest neighbours make streaks; across a few pixels they vanish.
        carried = np.where(core[..., None], colour, palette[nearest])
        carried = cv2.GaussianBlur(carried, (0, 0), max(1.0, rim / 2))
        amount = np.clip(1 - depth / rim, 0, 1) * (distance < 2.5 * rim)
        colour = colour + amount[..., None] * (carried - colour)
    return cast(RGBA, np.dstack([colour.round().clip(0, 255), (alpha * 255).round()]).astype(np.uint8))


def measure_light(image: RGB, mask: BoolMask | None = None) -> SceneLight:
    """The light of a picture, or of a part of it."""
    lab = _convert_to_lab(image)
    pixels = lab.reshape(-1, 3) if mask is None else lab[mask]
    mean = pixels.mean(axis=0)
    return SceneLight((float(mean[0]), float(mean[1]), float(mean[2])), float(pixels[:, 0].std()))


def relight_subject(picture: RGBA, own: SceneLight, there: SceneLight) -> RGBA:
    """The subject as the other scene's light would show it.

    What differs between the two *scenes* is carried over, by a share and within bounds: held against the
    plate itself, a white horse would turn grey in a forest. Contrast changes around the subject's own mean.
    """
    opaque = picture[..., 3] > 127
    if not opaque.any():
        return picture
    lab = _convert_to_lab(picture[..., :3])
    shift = _LIGHT_SHARE * (np.array(there.mean) - np.array(own.mean))
    shift = np.clip(shift, -np.array(_MAX_SHIFT), _MAX_SHIFT)
    ratio = (max(there.contrast, 0.5) / max(own.contrast, 0.5)) ** _LIGHT_SHARE
    centre = float(lab[opaque][:, 0].mean())
    lab[..., 0] = (lab[..., 0] - centre) * float(np.clip(ratio, *_MAX_CONTRAST)) + centre
    moved = cv2.cvtColor((lab + shift).astype(np.float32), cv2.COLOR_LAB2RGB) * 255
    return cast(RGBA, np.dstack([moved.round().clip(0, 255).astype(np.uint8), picture[..., 3]]))


def _convert_to_lab(image: RGB) -> F32:
    """(H, W, 3) CIE Lab in float: 8 bits would lose a few levels on the way back."""
    return cast(F32, cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))


def choose_height(cut: LiftedSubject, metres: float | None, plate_metres: float | None) -> float:
    """The subject's height as a share of the plate's.

    At first the share that it had in its own frame: a close-up stays one. Where true sizes are known, it
    moves half of the way (in octaves) to the size at which it would stand there in truth, within bounds: a
    cat beside a house would be too small to be a reference of a cat.

    Args:
        metres: true height of the subject, m; None: unknown.
        plate_metres: true height, m, that the plate's full height spans at its subjects' distance; None:
            unknown.
    """
    share = cut.box[3] - cut.box[1]
    if metres is None or plate_metres is None or cut.borders:
        return share
    true = metres / plate_metres
    return share * float(np.clip((true / share) ** 0.5, *_RESIZE_BOUNDS))


def place_subject(
    cut: LiftedSubject,
    size: tuple[int, int],
    height: float,
    rng: np.random.Generator,
    avoid: Sequence[RelativeBox] = (),
    cover: Sequence[RelativeBox] = (),
) -> PlatePlacement:
    """Where the subject stands in a plate of `size` (height, width) px.

    A subject that its own frame cut off stays at that border: a half-length portrait stands on the bottom
    edge. One that ran into opposite borders keeps its frame: a window of that aspect is taken from the plate.
    All others are seen whole. The ground stays about as high as it was. Boxes in `avoid` stay as visible as
    may be, boxes in `cover` are hidden as well as may be.
    """
    tall, wide = size
    if {"left", "right"} <= cut.borders or {"top", "bottom"} <= cut.borders:
        return _place_in_own_frame(cut, size, rng)
    share = float(np.clip(height * rng.uniform(*_HEIGHT_JITTER), *_HEIGHT_BOUNDS))
    aspect = cut.picture.shape[1] / cut.picture.shape[0]
    pixels = min(share * tall, _MAX_WIDTH * wide / aspect)
    h, w = max(1, round(pixels)), max(1, round(pixels * aspect))
    best: tuple[float, tuple[int, int]] | None = None
    for _ in range(_PLACE_ATTEMPTS if avoid or cover else 1):
        left = _choose_left(cut.borders, "left", "right", w, wide, rng.uniform())
        base = cut.box[3] + rng.uniform(*_BASE_DRIFT)
        room = tall - h
        low = round(min(_MARGIN * tall, room / 2))
        free = int(np.clip(round(base * tall) - h, low, room - low))
        top = 0 if "top" in cut.borders else room if "bottom" in cut.borders else free
        covers = _make_cover_function((left / wide, top / tall, (left + w) / wide, (top + h) / tall))
        cost = max(map(covers, avoid), default=0.0) - min(map(covers, cover), default=0.0)
        if best is None or cost < best[0]:
            best = (cost, (left, top))
    assert best is not None
    left, top = best[1]
    return PlatePlacement((0, 0, wide, tall), (left, top, left + w, top + h))


def _choose_left(
    borders: frozenset[Side], first: Side, last: Side, extent: int, room: int, drawn: float
) -> int:
    """Start of the subject along the horizontal axis; `drawn` is 0..1."""
    if first in borders:
        return 0
    if last in borders:
        return room - extent
    margin = min(_MARGIN * room, (room - extent) / 2)
    return round(margin + drawn * (room - extent - 2 * margin))


def _place_in_own_frame(
    cut: LiftedSubject, size: tuple[int, int], rng: np.random.Generator
) -> PlatePlacement:
    tall, wide = size
    h, w = (tall, round(tall * cut.aspect)) if cut.aspect <= wide / tall else (round(wide / cut.aspect), wide)
    h, w = max(1, h), max(1, w)
    x = int(rng.integers(0, wide - w + 1))
    y = int(rng.integers(0, tall - h + 1))
    x0, y0, x1, y1 = cut.box
    left, top = round(x0 * w), round(y0 * h)
    right, bottom = max(left + 1, round(x1 * w)), max(top + 1, round(y1 * h))
    return PlatePlacement((x, y, x + w, y + h), (left, top, min(right, w), min(bottom, h)))


def _make_cover_function(box: RelativeBox) -> Callable[[RelativeBox], float]:
    """Box -> the share of it that `box` covers."""

    def measure_share(other: RelativeBox) -> float:
        across = min(box[2], other[2]) - max(box[0], other[0])
        down = min(box[3], other[3]) - max(box[1], other[1])
        area = (other[2] - other[0]) * (other[3] - other[1])
        return across * down / area if across > 0 and down > 0 and area > 0 else 0.0

    return measure_share


def draw_shadow(opacity: F32, box: tuple[int, int, int, int], size: tuple[int, int]) -> F32:
    """(H, W) darkness 0..1 on the ground below a subject: its outline, lying down, soft, darkest at its foot.

    `opacity`: (h, w) of the subject, 0..1, which fills `box` in a picture of `size` (H, W) px.
    """
    left, top, right, bottom = box
    h, w = bottom - top, right - left
    flat = max(3, round(h * _SHADOW_HEIGHT))
    soft = max(1.5, 0.02 * w)
    pad = int(3 * soft) + flat
    lying = cv2.resize(opacity, (w, flat), interpolation=cv2.INTER_AREA)
    # Lying towards the camera as well as away from it: the light comes from above.
    ground = np.zeros((flat + 2 * pad, w + 2 * pad), np.float32)
    ground[pad : pad + flat, pad : pad + w] = np.maximum(lying, 0)
    foot = opacity[-max(2, h // 12) :].max(axis=0)
    contact = np.zeros_like(ground)
    contact[pad + flat // 2 : pad + flat // 2 + max(2, flat // 4), pad : pad + w] = foot
    dark = 0.55 * cv2.GaussianBlur(ground, (0, 0), 1.6 * soft) + 0.8 * cv2.GaussianBlur(contact, (0, 0), soft)
    canvas = np.zeros(size, np.float32)
    y, x = bottom - pad - round(0.62 * flat), left - pad
    rows = slice(max(0, y), min(size[0], y + dark.shape[0]))
    columns = slice(max(0, x), min(size[1], x + dark.shape[1]))
    canvas[rows, columns] = dark[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return cast(F32, np.clip(_SHADOW_OPACITY * canvas, 0, _SHADOW_OPACITY))


def composite_subject(
    cut: LiftedSubject,
    plate: RGB,
    rng: np.random.Generator,
    *,
    metres: float | None = None,
    plate_metres: float | None = None,
    avoid: Sequence[RelativeBox] = (),
    cover: Sequence[RelativeBox] = (),
    casts_shadow: bool = False,
) -> RGB:
    """The subject on the plate, or on the window of it that the subject needs.

    Args:
        metres, plate_metres: as `wanted_height`.
        avoid, cover: boxes in the plate that should stay visible, and that should be hidden.
        grounded: it stands on something, so that it throws a shadow there.
    """
    spot = place_subject(cut, plate.shape[:2], choose_height(cut, metres, plate_metres), rng, avoid, cover)
    x0, y0, x1, y1 = spot.window
    scene = np.ascontiguousarray(plate[y0:y1, x0:x1])
    left, top, right, bottom = spot.box
    front = resize_cutout(cut.picture, right - left, bottom - top)
    front = relight_subject(front, cut.light, measure_light(scene))
    if casts_shadow and "bottom" not in cut.borders:
        dark = draw_shadow((front[..., 3] / 255).astype(np.float32), spot.box, scene.shape[:2])
        scene = (scene * (1 - dark[..., None])).round().astype(np.uint8)
    canvas: RGBA = np.zeros((*scene.shape[:2], 4), np.uint8)
    canvas[top:bottom, left:right] = front
    return composite_over(canvas, scene)
