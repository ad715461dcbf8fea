"""Measure the light of scenes, and relight a subject for another scene. Colours are CIE Lab, L 0..100."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask
from curation.imaging.cutout import RGBA

F32 = NDArray[np.float32]

_SHARE = 0.5  # share of the difference between two lights that is applied to a subject
_MAX_SHIFT = (9.0, 5.0, 7.0)  # CIE Lab; brightness may change more than colour, so that a red cup stays red
_MAX_CONTRAST = (0.85, 1.15)


@dataclass(frozen=True)
class SceneLight:
    """Mean (L, a, b) of a scene, and the standard deviation of its L."""

    mean: tuple[float, float, float]
    contrast: float


def measure_light(image: RGB, mask: BoolMask | None = None) -> SceneLight:
    """Measure the light of a picture, or of the part of it under a mask."""
    lab = _convert_to_lab(image)
    pixels = lab.reshape(-1, 3) if mask is None else lab[mask]
    mean = pixels.mean(axis=0)
    return SceneLight((float(mean[0]), float(mean[1]), float(mean[2])), float(pixels[:, 0].std()))


def relight_subject(picture: RGBA, own: SceneLight, there: SceneLight) -> RGBA:
    """Change a subject's colours as the light of another scene would.

    A share of the difference between the two scenes is applied, within bounds. Matching the subject itself to
    the new scene would make a white horse grey in a forest. Contrast changes around the subject's own mean.

    Args:
        picture: the subject.
        own: the light of the scene that it comes from.
        there: the light of the scene that it is put into.
    """
    opaque = picture[..., 3] > 127
    if not opaque.any():
        return picture
    lab = _convert_to_lab(picture[..., :3])
    shift = _SHARE * (np.array(there.mean) - np.array(own.mean))
    shift = np.clip(shift, -np.array(_MAX_SHIFT), _MAX_SHIFT)
    ratio = (max(there.contrast, 0.5) / max(own.contrast, 0.5)) ** _SHARE
    centre = float(lab[opaque][:, 0].mean())
    lab[..., 0] = (lab[..., 0] - centre) * float(np.clip(ratio, *_MAX_CONTRAST)) + centre
    moved = cv2.cvtColor((lab + shift).astype(np.float32), cv2.COLOR_LAB2RGB) * 255
    return cast(RGBA, np.dstack([moved.round().clip(0, 255).astype(np.uint8), picture[..., 3]]))


def _convert_to_lab(image: RGB) -> F32:
    """Convert to (H, W, 3) CIE Lab in float32, because 8 bits would lose a few levels on the way back."""
    return cast(F32, cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))
