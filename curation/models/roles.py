"""The roles: one small protocol each. A model is any object that implements one; each worker builds it once.

In all roles, a picture is RGB uint8 (H, W, 3), a box is xyxy in pixels with right and bottom exclusive, and a
mask is bool (H, W). A model's result for one picture does not depend on the other pictures of the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, BoolMask
from curation.rows.schema import EncodedMask

# ---- arguments and results ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phrase:
    """A subject that a caption names.

    Attributes:
        text: the phrase of the caption, for grounding.
        category: of the taxonomy.
        group: of the taxonomy.
        count: how many the caption names; None: several, without a number.
    """

    text: str
    category: str
    group: str
    count: int | None


@dataclass(frozen=True)
class DetectionScene:
    """One sampled frame with its motion.

    Attributes:
        image: the frame.
        motion: (h, w) float32 at any resolution, residual motion after camera compensation, in shares of the
            frame's diagonal per second; None: not measured, as in a still picture.
    """

    image: RGB
    motion: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Detection:
    """A box for one phrase.

    Attributes:
        phrase: index into the phrases of the call.
        box: xyxy, px.
        score: confidence that something is there, 0..1.
        label: confidence that it belongs to this phrase and not to another phrase of the caption, 0..1.
    """

    phrase: int
    box: list[float]
    score: float
    label: float


@dataclass(frozen=True)
class Segmentation:
    """The masks of one picture.

    Attributes:
        masks: (H, W) bool, in the order of the boxes.
        scores: the segmenter's own estimate of each mask's quality, 0..1.
    """

    masks: list[BoolMask]
    scores: list[float]


@dataclass(frozen=True)
class SubjectTrack:
    """One subject through the frames of a clip. Each list has one item per frame.

    Attributes:
        boxes: xyxy, px, tight around the mask; None where the subject is not visible.
        masks: COCO run-length encoded, of the frames' size; None where the subject is not visible.
        presence: the model's own estimate that the subject is visible, 0..1.
    """

    boxes: list[list[float] | None]
    masks: list[EncodedMask | None]
    presence: list[float]

    @property
    def visible_share(self) -> float:
        """Share of the frames in which the subject is visible, 0..1."""
        return sum(mask is not None for mask in self.masks) / max(1, len(self.masks))


@dataclass(frozen=True)
class Face:
    """One face of a picture.

    Attributes:
        box: xyxy, px.
        score: confidence that it is a face, 0..1.
        frontality: 0..1. 1: it looks at the camera; 0: it is in profile or turned away.
        yaw: degrees; None: unknown.
        pitch: degrees; None: unknown.
        roll: degrees; None: unknown.
        embedding: unit vector of the identity; None: unknown.
    """

    box: list[float]
    score: float
    frontality: float
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None
    embedding: NDArray[np.float32] | None = None


# ---- the roles ---------------------------------------------------------------------------------------------


class Model(Protocol):
    """What every model states about itself. `registry.get_model_id` writes it into the rows that it measured.

    A model with a checkpoint also has `sha256`, see `checkpoints.compute_fingerprint`.

    Attributes:
        name: of its backend.
        revision: of its checkpoint or, without one, of its code.
    """

    name: str
    revision: str


class Captioner(Model, Protocol):
    """Writes captions."""

    def caption(self, clips: Sequence[Sequence[RGB]]) -> list[str]:
        """Write one sentence per clip.

        Args:
            clips: the frames of each clip, in time order.
        """
        ...


class Detector(Model, Protocol):
    """Finds the subjects that phrases name."""

    def detect(
        self, scenes: Sequence[DetectionScene], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Detection]]:
        """Find boxes in each scene.

        Args:
            scenes: one frame each.
            phrases: for each scene, the phrases to look for.

        Returns:
            For each scene its boxes, the best first.
        """
        ...


class Tracker(Model, Protocol):
    """Follows subjects through a clip."""

    def track(self, frames: Sequence[RGB], start: int, boxes: Sequence[list[float]]) -> list[SubjectTrack]:
        """Follow the subject in each box, to both ends of the clip.

        Args:
            frames: in time order, of one size.
            start: index of the frame that the boxes are in.
            boxes: xyxy, px.

        Returns:
            One track per box.
        """
        ...


class Segmenter(Model, Protocol):
    """Makes masks from boxes."""

    def segment(self, images: Sequence[RGB], boxes: Sequence[Sequence[list[float]]]) -> list[Segmentation]:
        """Segment one thing per box.

        Args:
            images: pictures of any size.
            boxes: for each picture its boxes, xyxy, px.
        """
        ...


class ImageTextScorer(Model, Protocol):
    """Measures how well texts fit a picture."""

    def score(self, images: Sequence[RGB], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return probabilities (images, texts), 0..1; each row sums to 1."""
        ...


class ImageEmbedder(Model, Protocol):
    """Maps pictures to vectors, which are near each other if the pictures show the same thing."""

    def embed(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        """Return unit vectors (images, dimensions). The dot product of two is their similarity, -1..1."""
        ...


class FaceDetector(Model, Protocol):
    """Finds faces."""

    def detect_faces(self, images: Sequence[RGB]) -> list[list[Face]]:
        """Find the faces of each picture, in any order."""
        ...


class FlowEstimator(Model, Protocol):
    """Measures the motion between two frames."""

    def estimate_flow(self, before: Sequence[RGB], after: Sequence[RGB]) -> list[NDArray[np.float32]]:
        """Measure the displacement of each pixel from one picture to the next.

        Args:
            before: pictures.
            after: the later picture of each pair, of the size of the earlier one.

        Returns:
            For each pair (H, W, 2): the displacement (x, y) of each pixel of `before`, px.
        """
        ...


class Inpainter(Model, Protocol):
    """Fills what is under a mask.

    Attributes:
        paints_around: true: a generative model. It must see the subject, so that it paints a fitting
            background, and it uses the prompt. False: it continues the surroundings into the hole and ignores
            prompts. It must not see the subject, because it would smear the subject's colours.
    """

    paints_around: bool

    def inpaint(
        self,
        images: Sequence[RGB],
        masks: Sequence[BoolMask],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[RGB]:
        """Replace the pixels under each mask; the pixels outside it do not change.

        Args:
            images: pictures of any size.
            masks: (H, W) bool, of the size of their pictures.
            prompts: descriptions of the whole picture; None: erase the content under the mask.
            seeds: equal seeds give equal pictures.
        """
        ...


class Variator(Model, Protocol):
    """Makes another picture of a subject.

    A model that warps pixels returns a cut-out with a transparent background. A generative model returns a
    whole picture whose alpha is 255 everywhere, because it does not segment its result.
    """

    def vary(
        self,
        subjects: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[NDArray[np.uint8]]:
        """Show each subject in a new pose, view or light.

        Args:
            subjects: RGBA uint8 (H, W, 4), straight alpha.
            prompts: descriptions of the new picture, or None.
            seeds: equal seeds give equal pictures.

        Returns:
            RGBA pictures of any size.
        """
        ...
