"""Subjects for the demo videos, cut out of the photographs that ship inside scikit-image.

Nothing is downloaded: every photograph is in ``skimage/data`` of the installed wheel. The docstrings of
``skimage.data`` state these licences:

* ``astronaut.png`` (Eileen Collins, NASA): no known copyright restrictions, released into the public domain.
  ``hubble_deep_field.jpg`` (NASA): may be freely used in the public domain.
* ``rocket.jpg`` (SpaceX): released in the public domain. ``clock_motion.png`` (Stefan van der Walt): released
  into the public domain by the photographer.
* ``chelsea.png`` (Stefan van der Walt), ``coffee.png`` (Rachel Michetti), ``camera.png`` (Lav Varshney),
  ``horse.png`` (Andreas Preuss), ``brick.png``, ``grass.png`` and ``gravel.png`` (CC0Textures, DeviantArt),
  ``retina.jpg`` (Mikael Häggström): CC0.
* ``coins.png`` (Brooklyn Museum): no known copyright restrictions.
* ``motorcycle_left.png`` and its disparity map: Middlebury 2014 stereo benchmark (Scharstein et al.).
* ``moon.png``, ``page.png``, ``color.png``, ``chessboard_GRAY.png``: no own terms are stated; they have the
  licence of scikit-image (BSD 3-clause).

An **outline** is a polygon in pixels of its photograph, drawn by hand. `refine_mask` corrects some of them by
GrabCut inside a thin band. A **cut-out** is straight-alpha RGBA, cropped to its content. The colours of its
soft edge are those inside the subject, so it has no rim of the old background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, cast

import cv2
import numpy as np
import numpy.typing as npt
import skimage
from PIL import Image

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Points = tuple[tuple[float, float], ...]

_PHOTO_FOLDER: Final = Path(skimage.__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Cutout:
    """One subject, cropped to its content.

    ``rgba`` is (h, w, 4) uint8, straight (not premultiplied) alpha. ``words`` are common names of it; the
    first is its category in the truth. ``whole`` is false if the photograph cuts the subject off (a portrait
    to the waist): its lower edge must then be outside the frame. ``lean`` is the descent of the ground under
    it per pixel to the right, for photographs that were taken at an angle.
    """

    name: str
    words: tuple[str, ...]
    rgba: U8
    whole: bool = True
    lean: float = 0.0


@cache
def load_photo(name: str) -> U8:
    """Load the bundled photograph ``name`` as (h, w, 3) uint8 RGB.

    Raises:
        FileNotFoundError: the wheel does not have it.
    """
    # Pillow is used, because OpenCV warns on stderr about the colour profile of one photograph.
    with Image.open(_PHOTO_FOLDER / name) as image:
        result: U8 = np.array(image.convert("RGB"), np.uint8)
    result.setflags(write=False)
    return result


# ---- from an outline to a cut-out ----------------------------------------------------------------


def fill_outlines(shape: tuple[int, int], *outlines: Points) -> U8:
    """Return the union of ``outlines`` (x, y in pixels) as a 0/1 mask of ``shape`` (height, width)."""
    mask: U8 = np.zeros(shape, np.uint8)
    for outline in outlines:
        cv2.fillPoly(mask, [np.round(np.array(outline)).astype(np.int32)], 1)
    return mask


def make_oval(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> Points:
    """Make an ellipse as a polygon of 72 corners from its centre, half axes and clockwise turn."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    turn = np.deg2rad(degrees)
    x = cx + rx * np.cos(t) * np.cos(turn) - ry * np.sin(t) * np.sin(turn)
    y = cy + rx * np.cos(t) * np.sin(turn) + ry * np.sin(t) * np.cos(turn)
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


def refine_mask(image: U8, mask: U8, band: int) -> U8:
    """Refine a mask by GrabCut within ``band`` px of its outline; all other pixels do not change."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band + 1, 2 * band + 1))
    sure = cv2.erode(mask, kernel, borderType=cv2.BORDER_REPLICATE)
    maybe = cv2.dilate(mask, kernel)
    labels = np.where(maybe == 0, cv2.GC_BGD, cv2.GC_PR_FGD).astype(np.uint8)
    labels[(maybe == 1) & (mask == 0)] = cv2.GC_PR_BGD
    labels[sure == 1] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # the k-means of GrabCut uses OpenCV's global generator
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, labels, (0, 0, 1, 1), background, foreground, 4, cv2.GC_INIT_WITH_MASK)
    return smooth_mask(((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8), 1.5)


def smooth_mask(mask: U8, sigma: float) -> U8:
    """Smooth the outline of a 0/1 mask and keep its largest piece."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    hard = (soft > 0.5).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hard, connectivity=4)
    if count < 2:
        return hard
    return cast(U8, (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8))


def extract_cutout(image: U8, mask: U8, *, shrink: float = 1.0, feather: float = 0.8) -> U8:
    """Cut ``mask`` (0/1) out of ``image`` as RGBA cropped to its content.

    The outline moves inwards by ``shrink`` px and is softened over ``feather`` px; colours within two
    pixels of it are replaced by the nearest colour further inside, because those pixels are a mixture with
    the old background.
    """
    # A border of background is added on the sides on which the photograph does not cut the subject off.
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    alpha = np.clip((inside - shrink) / max(feather * 2, 1e-3), 0, 1).astype(np.float32)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 0.6, borderType=cv2.BORDER_REPLICATE)
    core = (inside > shrink + 2).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(1 - core, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    ys, xs = np.nonzero(core)
    table = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    table[nearest[ys, xs]] = image[ys, xs]
    colour = np.where((core == 1)[..., None], image, table[nearest])
    rgba = np.dstack([colour, np.round(alpha * 255).astype(np.uint8)])
    ys, xs = np.nonzero(rgba[..., 3] > 2)
    return np.ascontiguousarray(rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])


# ---- the subjects --------------------------------------------------------------------------------

_ASTRONAUT: Final[Points] = (
    (232, 15), (250, 18), (268, 28), (284, 42), (295, 60), (301, 80), (301, 96), (296, 110), (289, 121),
    (280, 131), (268, 137), (264, 150), (257, 166), (257, 173), (268, 181), (280, 193), (291, 209),
    (299, 226), (304, 240), (325, 249), (338, 264), (346, 280), (353, 297), (358, 317), (361, 335),
    (364, 350), (380, 344), (400, 342), (420, 346), (440, 354), (460, 369), (475, 389), (487, 414),
    (494, 439), (497, 454), (495, 512), (33, 512), (28, 500), (23, 480), (25, 460), (27, 440), (24, 415),
    (22, 395), (24, 370), (27, 345), (31, 325), (39, 305), (47, 285), (54, 268), (64, 249), (75, 237),
    (92, 227), (105, 212), (115, 205), (111, 194), (113, 185), (121, 181), (128, 171), (138, 161),
    (150, 154), (165, 149), (183, 148), (178, 132), (171, 122), (161, 112), (154, 98), (153, 80),
    (159, 64), (171, 51), (187, 39), (199, 27), (215, 18),
)  # fmt: skip

_SHUTTLE: Final[Points] = (
    (402, 5), (407, -4), (413, -6), (419, -4), (427, 8), (432, 20), (436, 35), (437, 52), (441, 42),
    (444, 39), (448, 42), (452, 58), (454, 70), (455, 100), (455, 200), (456, 210), (455, 233),
    (453, 237), (456, 250), (459, 262), (452, 265), (449, 271), (441, 271), (434, 263), (437, 250),
    (437, 236), (426, 236), (426, 262), (409, 260), (405, 270), (393, 270), (386, 262), (385, 254),
    (369, 272), (366, 264), (386, 224), (376, 229), (353, 226), (354, 215), (361, 202), (378, 184),
    (377, 180), (377, 115), (380, 100), (380, 60), (384, 46), (388, 41), (391, 47), (395, 68), (396, 60),
    (396, 40), (398, 20),
)  # fmt: skip

_CAT: Final[Points] = (
    (42, 0), (43, -14), (50, -30), (62, -38), (76, -32), (92, -20), (112, -12), (160, -16), (220, -17),
    (280, -13), (318, -10), (336, -22), (358, -34), (380, -38), (396, -30), (402, -12), (399, 0),
    (388, 20), (372, 45), (361, 65), (356, 85), (357, 105), (361, 125), (359, 145), (351, 170),
    (336, 196), (319, 216), (311, 240), (306, 262), (300, 276), (304, 300), (0, 300), (2, 240), (7, 190),
    (12, 150), (20, 122), (28, 95), (30, 60), (34, 30),
)  # fmt: skip

_MAN: Final[Points] = (
    (205, 63), (222, 64), (240, 74), (256, 90), (266, 106), (270, 118), (268, 130), (263, 138),
    (275, 140), (322, 139), (325, 146), (322, 156), (318, 170), (326, 168), (332, 180), (330, 200),
    (318, 222), (300, 244), (304, 274), (288, 286), (262, 308), (246, 312), (228, 305), (206, 294),
    (190, 322), (142, 380), (150, 440), (152, 512), (140, 512), (128, 482), (99, 446), (90, 512),
    (0, 512), (1, 262), (12, 240), (28, 220), (44, 188), (66, 150), (90, 135), (130, 124), (152, 106),
    (164, 100), (176, 80), (190, 70),
)  # fmt: skip

_FRONT_TYRE: Final[Points] = (
    (507, 300), (511, 340), (529, 385), (554, 415), (590, 438), (620, 449), (645, 452), (668, 441),
    (681, 416), (684, 390), (679, 360), (666, 330), (652, 312), (640, 290), (560, 270), (520, 280),
)  # fmt: skip


def _cut_astronaut() -> U8:
    image = load_photo("astronaut.png")
    return extract_cutout(image, refine_mask(image, fill_outlines((512, 512), _ASTRONAUT), 4))


def _cut_shuttle() -> U8:
    # The photograph cuts a few pixels of the tank's tip off; mirrored rows complete it.
    top = 8
    image = cv2.copyMakeBorder(load_photo("astronaut.png")[:300], top, 0, 0, 0, cv2.BORDER_REFLECT)
    mask = fill_outlines((308, 512), tuple((x, y + top) for x, y in _SHUTTLE))
    return extract_cutout(cast(U8, image), smooth_mask(mask, 0.8), shrink=0.5)


def _cut_cat() -> U8:
    # The photograph ends below the tips of the ears. Mirrored fur completes them, and the outline rounds
    # them.
    top = 48
    image = cv2.copyMakeBorder(load_photo("chelsea.png"), top, 0, 0, 0, cv2.BORDER_REFLECT)
    mask = fill_outlines((348, 451), tuple((x, y + top) for x, y in _CAT))
    return extract_cutout(cast(U8, image), smooth_mask(mask, 3.0), shrink=1.0, feather=1.5)


def _cut_cup() -> U8:
    image = load_photo("coffee.png")
    mask = fill_outlines(
        (400, 600),
        make_oval(277, 213, 202, 177),
        make_oval(290, 112, 119, 96),
        ((396, 67), (424, 68), (424, 90), (400, 140)),
    )
    return extract_cutout(image, refine_mask(image, mask, 4))


def _cut_motorcycle() -> U8:
    """Cut out the motorcycle by the disparity map (nearer than floor and wall), and the tyres by outline."""
    image = load_photo("motorcycle_left.png")
    with np.load(_PHOTO_FOLDER / "motorcycle_disp.npz") as data:
        disparity = data["arr_0"].astype(np.float32)
    disparity[~np.isfinite(disparity)] = 0
    rows = np.arange(500, dtype=np.float32)
    floor_columns = np.concatenate([disparity[300:, :40], disparity[300:, 700:]], axis=1)
    slope, offset = np.polyfit(rows[300:], np.median(floor_columns, axis=1), 1)
    nearer_than = np.maximum(slope * rows + offset + 2.5, 36.0)[:, None]
    mask = (disparity > nearer_than).astype(np.uint8)
    mask[:, :95] = 0
    mask |= fill_outlines((500, 741), make_oval(204, 320, 82, 81), _FRONT_TYRE)
    mask[402:, :480] = 0  # shadow and stand on the floor
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)).astype(np.uint8)
    return extract_cutout(image, smooth_mask(mask, 1.0), shrink=0.5)


def _cut_man() -> U8:
    image = load_photo("camera.png")
    return extract_cutout(image, refine_mask(image, fill_outlines((512, 512), _MAN), 4))


def _cut_horse() -> U8:
    """Cut out the silhouette and shade it as if it were round: chestnut, brighter at the back, with grain."""
    figure = (load_photo("horse.png")[..., 0] < 128).astype(np.uint8)
    large = cv2.resize(figure * 255, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    mask = (large > 127).astype(np.uint8)
    mask = cv2.copyMakeBorder(mask, 6, 6, 6, 6, cv2.BORDER_CONSTANT, value=0).astype(np.uint8)
    depth = np.sqrt(np.minimum(cv2.distanceTransform(mask, cv2.DIST_L2, 5), 90.0) / 90.0)
    depth = cv2.GaussianBlur(depth, (0, 0), 14)
    slope_y = cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3) * 8
    light = np.clip(0.62 + 0.55 * slope_y + 0.25 * depth, 0.25, 1.25)
    fur = cv2.resize(
        load_photo("chelsea.png")[20:70, 210:290], mask.shape[::-1], interpolation=cv2.INTER_CUBIC
    )
    grain = fur.mean(axis=2).astype(np.float32)
    grain = 1 + 0.35 * (grain - cv2.GaussianBlur(grain, (0, 0), 40)) / 128
    rows = np.linspace(0, 1, mask.shape[0], dtype=np.float32)[:, None]
    dark_legs = 1 - 0.5 * np.clip((rows - 0.62) / 0.3, 0, 1)
    colour = np.array([150, 86, 44], np.float32) * (light * grain * dark_legs)[..., None]
    return extract_cutout(np.clip(colour, 0, 255).astype(np.uint8), mask, shrink=0.5)


def _cut_coin() -> U8:
    image = load_photo("coins.png")
    crop = np.ascontiguousarray(image[150:226, 308:384])
    crop = cast(U8, cv2.resize(crop, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC))
    mask = fill_outlines((228, 228), make_oval(117, 111, 97, 93))
    tone = crop[..., 0].astype(np.float32)
    grey = np.clip((tone - 70) / 110, 0, 1.2)[..., None]
    gold = np.array([60, 34, 4], np.float32) + grey * np.array([185, 150, 70], np.float32)
    return extract_cutout(np.clip(gold, 0, 255).astype(np.uint8), mask, shrink=2.0)


def _cut_clock() -> U8:
    """Cut out a wall clock that moved during the exposure, so that the photograph itself is blurred."""
    image = load_photo("clock_motion.png")
    mask = fill_outlines((300, 400), make_oval(212, 154, 72, 60))
    return extract_cutout(image, mask, shrink=0.5, feather=4.0)


def _cut_ball() -> U8:
    """Cut out the colour wheel and shade it as a beach ball."""
    image = load_photo("color.png")
    mask = fill_outlines((370, 371), make_oval(185, 185, 180, 180))
    grid = cast(F32, np.mgrid[-1:1:370j, -1:1:371j].astype(np.float32))
    y, x = grid[0], grid[1]
    sphere = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    light = np.clip(0.45 + 0.65 * (0.75 * sphere - 0.35 * x - 0.55 * y), 0.25, 1.15)
    return extract_cutout(np.clip(image * light[..., None], 0, 255).astype(np.uint8), mask)


_RECIPES: Final[dict[str, tuple[tuple[str, ...], bool, Callable[[], U8]]]] = {
    "astronaut": (("human", "astronaut", "woman", "person"), False, _cut_astronaut),
    "shuttle": (("rocket", "spaceship", "spacecraft", "space shuttle"), True, _cut_shuttle),
    "cat": (("cat", "tabby cat"), False, _cut_cat),
    "cup": (("cup", "coffee cup", "mug"), True, _cut_cup),
    "motorcycle": (("motorcycle", "motorbike"), True, _cut_motorcycle),
    "man": (("human", "man", "person", "photographer"), False, _cut_man),
    "horse": (("horse",), True, _cut_horse),
    "coin": (("coin", "money", "gold coin"), True, _cut_coin),
    "clock": (("clock", "wall clock"), True, _cut_clock),
    "ball": (("ball", "beach ball"), True, _cut_ball),
}
_LEAN: Final = {"motorcycle": 50 / 436}  # from tyre to tyre

NAMES: Final[tuple[str, ...]] = tuple(_RECIPES)


@cache
def get_cutout(name: str) -> Cutout:
    """Return the cut-out ``name``, one of ``NAMES``.

    Raises:
        KeyError: there is no such cut-out; the message lists the known ones.
    """
    if name not in _RECIPES:
        raise KeyError(f"no cut-out called {name!r}; there are {', '.join(NAMES)}")
    words, whole, recipe = _RECIPES[name]
    rgba = recipe()
    rgba.setflags(write=False)
    return Cutout(name, words, rgba, whole, _LEAN.get(name, 0.0))
