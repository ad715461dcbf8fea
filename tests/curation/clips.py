"""Clips made of coloured blobs, and backends that see nothing but colour: truth is known, nothing is learned.

Backends are named in a config as `tests.curation.clips:ColourDetector`, as anyone's own would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.config import CurationConfig, load_config
from curation.imaging.codec import RGB, BoolMask, encode_image, encode_mask, get_mask_box
from curation.models.roles import Detection, DetectionScene, Face, Phrase, Segmentation, SubjectTrack
from curation.rows.ids import make_subject_id
from curation.rows.schema import ClipRow, FrameRow, SubjectRow
from curation.rows.thresholds import Thresholds, build_rules
from curation.rows.verdicts import decide_clip

WIDTH, HEIGHT = 320, 180
COLOURS = {"red": (210, 40, 40), "green": (40, 190, 60), "blue": (40, 70, 210)}
RULES = build_rules(Thresholds())
HERE = "tests.curation.clips"
Blob = tuple[
    str, float, float, float
]  # colour, middle x and y as shares of the frame, radius as share of height


def config(*overrides: str) -> CurationConfig:
    """A config whose backends see colours."""
    return load_config(
        None,
        [f"models.detector={HERE}:ColourDetector", f"models.segmenter={HERE}:ColourSegmenter", *overrides],
    )


def disc(blob: Blob, size: tuple[int, int] = (WIDTH, HEIGHT)) -> BoolMask:
    """(H, W) mask of a blob in a frame of (width, height) px."""
    _, x, y, radius = blob
    mask = np.zeros((size[1], size[0]), np.uint8)
    cv2.circle(mask, (round(x * size[0]), round(y * size[1])), round(radius * size[1]), 1, -1)
    return mask.astype(bool)


def picture(*blobs: Blob, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> RGB:
    """A grey, grainy scene with textured blobs."""
    random = np.random.default_rng(seed)
    image = np.full((size[1], size[0], 3), 128.0) + random.normal(0, 12, (size[1], size[0], 1))
    for blob in blobs:
        mask = disc(blob, size)
        image[mask] = np.array(COLOURS[blob[0]]) + random.normal(0, 22, (int(mask.sum()), 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def frame(index: int, image: RGB, motion: bool = True) -> FrameRow:
    still = np.zeros((HEIGHT // 4, WIDTH // 4), np.uint8)
    return {
        "index": index,
        "time_s": index / 25,
        "image": encode_image(image),
        "motion": encode_image(still) if motion else None,
    }


def clip(
    number: int = 0, caption: str | None = "A red ball rolls by.", images: Sequence[RGB] | None = None
) -> ClipRow:
    """An open row as `slice` leaves it: clip 0 of video `number`, one sampled frame in five."""
    images = [picture(("red", 0.5, 0.5, 0.3), seed=number)] if images is None else images
    return {
        "clip_id": f"{number:020x}-0000000-0000050-abcdef",
        "video_id": f"{number:020x}",
        "source_path": f"/videos/{number}.mp4",
        "source_key": f"/videos/{number}.mp4|1|1",
        "extra": None,
        "license": None,
        "clip_path": f"clips/00/{number:020x}-0000000-0000050-abcdef.mp4",
        "clip_bytes": 1000,
        "clip_blake2b": f"{number:032x}",
        "clip_index": 0,
        "clip_count": 1,
        "start_frame": 0,
        "end_frame": 50,
        "start_s": 0.0,
        "end_s": 2.0,
        "num_frames": 50,
        "fps": 25.0,
        "width": WIDTH,
        "height": HEIGHT,
        "cut": "copy",
        "source_codec": "h264",
        "source_transfer": "sdr",
        "source_interlaced": False,
        "motion": 0.01,
        "camera_motion": 0.0,
        "flow_foreground": None,
        "flow_background": None,
        "motion_scale": 1.0,
        "caption": caption,
        "caption_source": None if caption is None else "sidecar",
        "status": "open",
        "stop": None,
        "frames": [frame(5 * n, image) for n, image in enumerate(images)],
        "subjects": [],
        "config_hash": "abcdefabcdef",
        "payload_bytes": 0,
    }


def subject(row: ClipRow, mask: BoolMask | None, start: int = 2, index: int = 0, **more: Any) -> SubjectRow:
    """A subject found and measured well in frame `index`; without a mask, one that was never found."""
    made: Any = {
        "subject_id": make_subject_id(row["clip_id"], "red ball", start, 0),
        "category": "ball",
        "group": "sport",
        "name": "ball",
        "phrase": "red ball",
        "count": 1,
        "instance": 0,
        "found_index": None if mask is None else index,
        "found_box": None if mask is None else get_mask_box(mask),
        "frame_index": None if mask is None else index,
        "box": None if mask is None else get_mask_box(mask),
        "mask": None if mask is None else encode_mask(mask),
        "track": None,
        "reference_frames": None,
        "scores": {},
        "verdict": None,
        "made_by": None,
        "references": [],
    }
    if mask is not None:
        made["scores"] = {
            "grounding": 0.9,
            "label": 0.9,
            "segment": 0.9,
            "area_share": float(mask.mean()),
            "border_share": 0.0,
            "overlap_iou": 0.0,
            "overlap_containment": 0.0,
            "brightness": 120.0,
            "clipped_share": 0.0,
            "sharpness": 300.0,
        }
    made["scores"] |= more.pop("scores", {})
    made.update(more)
    return made  # type: ignore[no-any-return]


def kept_clip(number: int = 0, caption: str = "A red ball rolls by.", **more: Any) -> ClipRow:
    """A decided row with one good subject and no references yet."""
    row = clip(number, caption)
    row["subjects"] = [subject(row, disc(("red", 0.5, 0.5, 0.3)), **more)]
    decide_clip(row, RULES)
    return row


class ColourDetector:
    """Finds blobs of the colour that a phrase names; a blob's score grows with its size."""

    name, revision = "colour-detector", "1"

    def detect(
        self, scenes: Sequence[DetectionScene], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Detection]]:
        return [
            [
                Detection(position, box, min(1.0, 0.5 + area / (WIDTH * HEIGHT)), 0.9)
                for position, phrase in enumerate(wanted_phrases)
                for colour in COLOURS
                if colour in phrase.text.lower()
                for box, area in blobs(scene.image, colour)
            ]
            for scene, wanted_phrases in zip(scenes, phrases, strict=True)
        ]


class ColourSegmenter:
    """What is coloured inside a box."""

    name, revision = "colour-segmenter", "1"

    def segment(self, images: Sequence[RGB], boxes: Sequence[Sequence[list[float]]]) -> list[Segmentation]:
        found = []
        for image, wanted_phrases in zip(images, boxes, strict=True):
            masks = [self._inside(image, box) for box in wanted_phrases]
            found.append(Segmentation(masks, [0.9] * len(masks)))
        return found

    @staticmethod
    def _inside(image: RGB, box: list[float]) -> BoolMask:
        x0, y0, x1, y1 = (round(side) for side in box)
        inside = np.zeros(image.shape[:2], bool)
        inside[y0:y1, x0:x1] = True
        return inside & np.any([find_colour(image, colour) for colour in COLOURS], axis=0)


class ColourTracker:
    """Follows the colour in a box; a subject with less than 100 visible px counts as not visible."""

    name, revision = "colour-tracker", "1"

    def track(self, frames: Sequence[RGB], start: int, boxes: Sequence[list[float]]) -> list[SubjectTrack]:
        return [self._follow(frames, self._colour(frames[start], box)) for box in boxes]

    @staticmethod
    def _colour(image: RGB, box: list[float]) -> str:
        x0, y0, x1, y1 = (round(side) for side in box)
        return max(COLOURS, key=lambda colour: find_colour(image[y0:y1, x0:x1], colour).sum())

    @staticmethod
    def _follow(frames: Sequence[RGB], colour: str) -> SubjectTrack:
        masks = [
            cv2.medianBlur(find_colour(image, colour).astype(np.uint8), 5).astype(bool) for image in frames
        ]
        seen = [mask.sum() > 100 for mask in masks]
        return SubjectTrack(
            [get_mask_box(mask) if there else None for mask, there in zip(masks, seen, strict=True)],
            [encode_mask(mask) if there else None for mask, there in zip(masks, seen, strict=True)],
            [0.95 if there else 0.05 for there in seen],
        )


class LostTracker(ColourTracker):
    """Loses everything at once."""

    @staticmethod
    def _follow(frames: Sequence[RGB], colour: str) -> SubjectTrack:
        nothing: list[Any] = [None] * len(frames)
        return SubjectTrack(nothing, nothing, [0.0] * len(frames))


class ShapeEmbedder:
    """A picture as its aspect ratio: an upright subject and a lying one are strangers."""

    name, revision = "shape-embedder", "1"

    def embed(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        angles = [np.arctan2(image.shape[0], image.shape[1]) * 2 for image in images]
        return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], np.float32).reshape(-1, 2)


class ColourFlow:
    """What is red goes 3 px right and 4 down, what is blue 6 px right, all else 1 px left; times the frames
    that lie between, which this one tells by their brightness: frame n is `MARK` + n in its corner."""

    name, revision = "colour-flow", "1"
    MARK = 10

    def estimate_flow(self, before: Sequence[RGB], after: Sequence[RGB]) -> list[NDArray[np.float32]]:
        found = []
        for one, other in zip(before, after, strict=True):
            steps = abs(round((int(other[0, 0, 0]) - int(one[0, 0, 0])) / self.MARK))
            flow = np.empty((*one.shape[:2], 2), np.float32)
            flow[:] = (-1, 0)
            flow[find_colour(one, "red")] = (3, 4)
            flow[find_colour(one, "blue")] = (6, 0)
            found.append(flow * steps)
        return found


class NothingSegmenter(ColourSegmenter):
    """Finds empty masks only."""

    @staticmethod
    def _inside(image: RGB, box: list[float]) -> BoolMask:
        return np.zeros(image.shape[:2], bool)


class BrokenInpainter:
    """Fails on pictures that contain blue."""

    name, revision = "broken-inpainter", "1"

    def inpaint(
        self,
        images: Sequence[RGB],
        masks: Sequence[BoolMask],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[RGB]:
        if any(find_colour(image, "blue").any() for image in images):
            raise RuntimeError("out of memory\nin line 3")
        return [np.full_like(image, 128) for image in images]


class TwoFaces:
    """Reports a face in the middle of each picture and one in its upper left corner."""

    name, revision = "two-faces", "1"

    def detect_faces(self, images: Sequence[RGB]) -> list[list[Face]]:
        found = []
        for image in images:
            height, width = image.shape[:2]
            middle = [width * 0.4, height * 0.4, width * 0.6, height * 0.6]
            found.append([Face(middle, 0.9, 0.8), Face([0, 0, width * 0.1, height * 0.1], 0.95, 0.7)])
        return found


class SureScorer:
    """Is sure that everything is the 3rd text's."""

    name, revision = "sure-scorer", "1"

    def score(self, images: Sequence[RGB], texts: Sequence[str]) -> NDArray[np.float32]:
        table = np.full((len(images), len(texts)), 0.2 / (len(texts) - 1), np.float32)
        table[:, 2] = 0.8
        return table


class Captioner:
    """Counts frames."""

    name, revision = "frame-counter", "7"

    def caption(self, clips: Sequence[Sequence[RGB]]) -> list[str]:
        return [f"A red ball in {len(frames)} frames." for frames in clips]


def find_colour(image: RGB, colour: str) -> BoolMask:
    """Pixels whose strongest channel is that of the colour, by far."""
    channel = int(np.argmax(COLOURS[colour]))
    others = np.delete(image.astype(int), channel, axis=2).max(axis=2)
    return np.asarray(image[..., channel].astype(int) - others > 50)


def blobs(image: RGB, colour: str) -> list[tuple[list[float], int]]:
    """(box, area in px) of each blob of a colour."""
    mask = cv2.medianBlur(find_colour(image, colour).astype(np.uint8), 5)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    found = []
    for x, y, width, height, area in stats[1:count].tolist():
        if area > 100:
            found.append(([float(x), float(y), float(x + width), float(y + height)], int(area)))
    return found
