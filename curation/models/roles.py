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

from curation.imaging.codec import RGB, BoolMask
from curation.rows.schema import EncodedMask


@dataclass(frozen=True)
class Phrase:
    """What the caption names: text for grounding, and where the taxonomy puts it."""

    text: str
    category: str
    group: str
    count: int | None  # how many the caption speaks of; None: several, unknown


@dataclass(frozen=True)
class DetectionScene:
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
    def detect(
        self, scenes: Sequence[DetectionScene], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Detection]]:
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
    def detect_faces(self, images: Sequence[RGB]) -> list[list[Face]]: ...


class Inpainter(Backend, Protocol):
    """Two kinds, which want to be asked differently; `paints_around` says which one this is.

    True: it invents. It wants to see the subject, so that what it paints fits it, and to be told what to
    paint: a description of the whole picture, or None to erase. False: it continues what it sees into the
    hole and understands no prompt. It must not see the subject whose surroundings it fills, or it smears its
    colours.
    """

    paints_around: bool

    def inpaint(
        self,
        images: Sequence[RGB],
        masks: Sequence[BoolMask],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[RGB]:
        """Replace what is under each mask, (H, W) bool like its picture; pixels outside it stay bit for bit.

        Equal seeds give equal pictures, whatever else is in the batch.
        """
        ...


class Variator(Backend, Protocol):
    """Makes another picture of a subject.

    One that moves pixels returns a cut-out with the background transparent. One that generates returns a
    whole picture: its alpha is 255 everywhere, as nobody has told the subject from what is around it.
    """

    def vary(
        self,
        subjects: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[NDArray[np.uint8]]:
        """RGBA subjects, straight alpha -> RGBA pictures of any size: a new pose, view or light."""
        ...


class ImageEmbedder(Backend, Protocol):
    def embed(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        """Unit vectors (images, dimensions); the dot product of two is their similarity, -1..1."""
        ...


class FlowEstimator(Backend, Protocol):
    def estimate_flow(self, before: Sequence[RGB], after: Sequence[RGB]) -> list[NDArray[np.float32]]:
        """For each pair of pictures of one size, (H, W, 2): where a pixel of `before` went, (x, y), px."""
        ...


@dataclass(frozen=True)
class SubjectTrack:
    """One subject through the frames of a clip; lists run over the frames, None where it is not seen.

    `boxes`: tight around the mask. `masks`: COCO run-length encoded, of the frames' size. `presence`: the
    model's own estimate that it is there at all, 0..1.
    """

    boxes: list[list[float] | None]
    masks: list[EncodedMask | None]
    presence: list[float]

    @property
    def visible_share(self) -> float:
        """Share of the frames in which it is seen, 0..1."""
        return sum(mask is not None for mask in self.masks) / max(1, len(self.masks))


class Tracker(Backend, Protocol):
    def track(self, frames: Sequence[RGB], start: int, boxes: Sequence[list[float]]) -> list[SubjectTrack]:
        """Follow what each box holds in frame `start` to both ends of the clip.

        frames: in time order, of one size.
        """
        ...
