"""Measure the maps of one frame that the detector uses: motion, saliency, edges and colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB
from curation.models.classical.colours import compute_memberships, find_colour_terms
from curation.models.roles import DetectionScene, Phrase

F32 = NDArray[np.float32]

WORK_SIDE = 256  # px, long side; the size of the motion maps
STILL_SPEED = 0.04  # diagonals per second: half-way between still and moving
_EDGE_GRADIENT = 60.0  # Lab gradient (Sobel) at which an outline is half-way between none and certain
_FAR_DISTANCE = (
    40.0  # Lab distance from all of the border's colours that counts as 1: about red against brown
)


@dataclass(frozen=True)
class FrameMaps:
    """Maps of a frame, (h, w) float32, 0..1, at working size. `scale`: working pixels per full pixel."""

    image: RGB
    scale: float
    moving: F32 | None  # motion against the camera; None: not measured
    salient: F32  # unlike the colours along the frame's border
    prominent: F32  # moving or salient; highest where both
    edges: F32  # strength of colour edges
    colours: dict[str, F32]  # basic colour term -> how well it names the pixel


def measure_frame(scene: DetectionScene, phrases: Sequence[Phrase]) -> FrameMaps:
    """Reduce a scene to working size and compute its maps, for the colours that the phrases name."""
    height, width = scene.image.shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cast(RGB, cv2.resize(scene.image, size, interpolation=cv2.INTER_AREA))
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    salient = _compute_saliency(lab)
    moving: F32 | None = None
    rest = 1 - 0.6 * salient
    if scene.motion is not None:
        speed = np.asarray(cv2.resize(scene.motion, size, interpolation=cv2.INTER_AREA), np.float32)
        moving = speed / (speed + np.float32(STILL_SPEED))
        rest = rest * (1 - 0.8 * moving) * (1 - 0.8 * np.sqrt(moving * salient))
    terms = sorted({term for phrase in phrases for term in find_colour_terms(phrase.text)})
    return FrameMaps(
        small, scale, moving, salient, 1 - rest, _compute_edges(lab), compute_memberships(lab, terms)
    )


def _compute_saliency(lab: F32) -> F32:
    """Compute how far each pixel's colour is from the colours along the frame's border.

    The border is usually background (boundary prior, Wei et al., ECCV 2012). Its colours are six k-means
    centres, and a pixel's distance is that to the nearest centre.
    """
    lab = np.array(cv2.GaussianBlur(lab, (0, 0), 1.5), np.float32)
    lab[..., 0] *= 0.6  # shadows change lightness far more than hue
    height, width = lab.shape[:2]
    band = max(2, round(0.05 * min(height, width)))
    parts = (lab[:band], lab[-band:], lab[:, :band], lab[:, -band:])
    border = np.concatenate([part.reshape(-1, 3) for part in parts])
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 8, 1.0)
    _, labels, centres = cv2.kmeans(border, 6, cast(np.ndarray, None), stop, 1, cv2.KMEANS_PP_CENTERS)
    # A colour on a small part of the border is probably a subject that the frame cuts off.
    share = np.bincount(np.ravel(labels), minlength=6) / len(border)
    distances = [np.linalg.norm(lab - centre, axis=2) for centre in np.asarray(centres)[share > 0.04]]
    return np.asarray(np.clip(np.min(distances, axis=0) / _FAR_DISTANCE, 0, 1), np.float32)


def _compute_edges(lab: F32) -> F32:
    across, down = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    gradient = np.sqrt((np.asarray(across) ** 2 + np.asarray(down) ** 2).sum(axis=2))
    strength = (gradient / (gradient + _EDGE_GRADIENT)).astype(np.float32)
    return np.asarray(cv2.dilate(strength, np.ones((3, 3), np.uint8)), np.float32)
