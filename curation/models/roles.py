"""One small protocol per role. A backend is any object that fits; it is built once per worker.

Every backend says what it is: `name` and `revision` go into the rows that it measured. Pictures are RGB
uint8 (H, W, 3); boxes are xyxy pixels, right and bottom exclusive; masks are (H, W) bool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from curation.imaging import RGB, BoolMask


@dataclass(frozen=True)
class Phrase:
    """What the caption names: text for grounding, and where the taxonomy puts it."""

    text: str
    category: str
    group: str
    count: int | None  # how many the caption speaks of; None: several, unknown


@dataclass(frozen=True)
class Scene:
    """One sampled frame and what is known of it.

    `motion`: (h, w) float32, residual motion after camera compensation in shares of the frame's diagonal
    per second, at any resolution; None where it was not measured (a still picture).
    """

    image: RGB
    motion: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Detection:
    """A box for one phrase.

    `score`: something is there, 0..1. `label`: it is what this phrase names and not what another phrase of
    the caption names, 0..1.
    """

    phrase: int  # index into the phrases asked for
    box: list[float]
    score: float
    label: float


@dataclass(frozen=True)
class Face:
    """`frontality`: 1 looks at the camera, 0 is profile or away. Angles in degrees, None where unknown."""

    box: list[float]
    score: float
    frontality: float
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Segmentation:
    masks: list[BoolMask]
    scores: list[float]  # the segmenter's own estimate of quality, 0..1


class Backend(Protocol):
    name: str
    revision: str


class Captioner(Backend, Protocol):
    def caption(self, clips: Sequence[Sequence[RGB]]) -> list[str]:
        """Frames of each clip in time order -> one sentence a clip."""
        ...


class Detector(Backend, Protocol):
    def detect(self, scenes: Sequence[Scene], phrases: Sequence[Sequence[Phrase]]) -> list[list[Detection]]:
        """For each scene, the boxes of its phrases; best first."""
        ...


class Segmenter(Backend, Protocol):
    def segment(self, images: Sequence[RGB], boxes: Sequence[Sequence[list[float]]]) -> list[Segmentation]:
        """For each image, one mask per box, in the order of the boxes."""
        ...


class ImageTextScorer(Backend, Protocol):
    def score(self, images: Sequence[RGB], texts: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities (images, texts), each row summing to 1."""
        ...


class FaceDetector(Backend, Protocol):
    def faces(self, images: Sequence[RGB]) -> list[list[Face]]: ...


class Inpainter(Backend, Protocol):
    def inpaint(
        self,
        images: Sequence[RGB],
        masks: Sequence[BoolMask],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[RGB]:
        """Replace what is under each mask; pixels outside it stay as they are."""
        ...


class Variator(Backend, Protocol):
    def vary(
        self,
        subjects: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[NDArray[np.uint8]]:
        """RGBA subjects -> RGBA subjects in a new pose, view or light."""
        ...


class ImageEmbedder(Backend, Protocol):
    def embed(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        """Unit vectors (images, dimensions); the dot product of two is their similarity, -1..1."""
        ...
