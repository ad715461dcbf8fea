"""The plain stage: one thing that moves straight on a plain ground. A small video model learns it in minutes.

The caption states only the direction, "A thing moves to the left."; colour, shape and texture are only in
pictures of the thing. So a model that draws the right thing uses its references, and a model that moves it in
the right direction uses the caption. Every tenth video shows the empty ground, on which cross-pairs are
composited.

Frames are `SIDE` x `SIDE` pixels and consist of 12 x 12 cells. A thing is 6 cells wide and moves 2 cells in
half a second. So a model with 12 x 12 pixels at 2 frames per second gets whole cells and whole steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from curation.demo.files import VideoSpec, write_truth_video
from curation.imaging.codec import RGB, encode_mask
from curation.playground.scenes import Thing, ThingTruth, compose_things, round_to_rgb
from curation.playground.world import F32, CanvasPlacement, RGBFloat, Texture, ThingLook
from reprise.errors import InputError

CELLS: Final = 12
SIDE: Final = 96  # px
FPS: Final = 16
SECONDS: Final = 1.25
HALF: Final = 3 / CELLS  # half a thing, share of the frame
STEP: Final = 2 / CELLS  # its motion in half a second, share of the frame
COLOURS: Final = ("red", "yellow", "green", "blue")
SHAPES: Final = ("square", "triangle", "cross", "ring")
TEXTURES: Final[tuple[Texture, ...]] = ("plain", "stripes")
WAYS: Final = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
THING: Final = "thing"  # its name in captions
STILL: Final = f"A {THING}."  # caption of a picture, without motion
EMPTY_EVERY: Final = 10  # one of this many videos has no thing
TAXONOMY: Final = Path(__file__).with_name("plain.taxonomy.yaml")
CONFIG: Final = Path(__file__).with_name("plain.yaml")  # the config that curates its videos


@dataclass(frozen=True, slots=True)
class ThingIdentity:
    """The identity of a thing: colour, shape and texture."""

    colour: str
    shape: str
    texture: Texture

    @property
    def name(self) -> str:
        """Colour and shape, as in "red star"."""
        return f"{self.colour} {self.shape}"

    @property
    def look(self) -> ThingLook:
        """The look with which the thing is drawn."""
        return ThingLook(texture=self.texture, period=4 / 3, contrast=0.6)


IDENTITIES: Final = tuple(ThingIdentity(c, s, t) for c in COLOURS for s in SHAPES for t in TEXTURES)


@dataclass(frozen=True, slots=True)
class PlainScene:
    """One clip: identity, direction, start and ground. `ground`: RGB, 0..1."""

    identity: ThingIdentity
    way: str
    begin: tuple[float, float]  # centre at the first frame, shares of the frame
    ground: RGBFloat

    @property
    def caption(self) -> str:
        """The caption. It names the direction, not the look."""
        way = {"right": "to the right", "left": "to the left"}.get(self.way, self.way)
        return f"A {THING} moves {way}."

    def get_centre(self, seconds: float) -> tuple[float, float]:
        """Return the centre of the thing after `seconds`, in shares of the frame."""
        dx, dy = WAYS[self.way]
        gone = STEP * seconds / 0.5
        return self.begin[0] + dx * gone, self.begin[1] + dy * gone


def make_plain_scene(seed: int, index: int) -> PlainScene:
    """Make the scene with this number; it never changes. All identities and directions are equally likely."""
    rng = np.random.default_rng([seed, index, 12])
    identity = IDENTITIES[int(rng.integers(len(IDENTITIES)))]
    way = list(WAYS)[int(rng.integers(len(WAYS)))]
    # The thing moves 4 cells in one second along its path; its other coordinate is free.
    along, across = int(rng.integers(0, 3)), int(rng.integers(0, CELLS - 6 + 1))
    dx, dy = WAYS[way]
    forward = (3 + along) / CELLS
    first = forward if dx + dy > 0 else 1 - forward
    other = (3 + across) / CELLS
    return PlainScene(identity, way, (first, other) if dx else (other, first), sample_ground(rng))


def sample_ground(rng: np.random.Generator) -> RGBFloat:
    """Sample a greyish tone that differs from every colour of a thing."""
    tone = float(rng.uniform(0.3, 0.7))
    red, green, blue = (tone + float(tint) for tint in rng.uniform(-0.06, 0.06, 3))
    return red, green, blue


def draw_picture(
    identity: ThingIdentity, centre: tuple[float, float], ground: RGBFloat, side: int, half: float = HALF
) -> tuple[F32, list[ThingTruth | None]]:
    """Draw a frame of `side` x `side` pixels, (side, side, 3), 0..1; return it with its truth.

    `centre` and `half` are shares of the frame.
    """
    canvas = np.broadcast_to(np.array(ground, np.float32), (side, side, 3)).copy()
    where = CanvasPlacement(centre[0] * side, centre[1] * side, half * side)
    return compose_things(canvas, [Thing(identity.name, where, identity.look)])


def draw_identity(identity: ThingIdentity, side: int = SIDE) -> RGB:
    """Draw the thing as large as the frame, centred on white, as a perfect `segment` reference shows it."""
    return round_to_rgb(draw_picture(identity, (0.5, 0.5), (1.0, 1.0, 1.0), side, half=0.5)[0])


def write_scene(scene: PlainScene, name: str, folder: Path) -> Path:
    """Write the scene as an mp4 file with its caption and truth; return the video's path."""
    film = VideoSpec(name, scene.caption, SIDE, SIDE, FPS, crf=12, threads=1)
    return write_truth_video(film, folder, partial(_render_frames, scene))


def write_ground(ground: RGBFloat, name: str, folder: Path) -> Path:
    """Write a video of only the ground; return its path."""

    def yield_frames(truth: dict[str, Any]) -> Iterator[RGB]:
        count = truth["num_frames"] = round(FPS * SECONDS)
        truth["shots"].append({"start_frame": 0, "end_frame": count, "camera": "static"})
        for _ in range(count):
            yield round_to_rgb(np.broadcast_to(np.array(ground, np.float32), (SIDE, SIDE, 3)))

    return write_truth_video(
        VideoSpec(name, "Nothing but grey ground.", SIDE, SIDE, FPS, crf=12, threads=1), folder, yield_frames
    )


def _render_frames(scene: PlainScene, truth: dict[str, Any]) -> Iterator[RGB]:
    """Yield all frames of a scene and fill `truth` in the format that `curation.demo.render` describes."""
    count = round(FPS * SECONDS)
    where: dict[str, Any] = {}
    for index in range(count):
        canvas, (seen,) = draw_picture(scene.identity, scene.get_centre(index / FPS), scene.ground, SIDE)
        if seen is not None:
            box = [int(edge) for edge in seen.box]
            where[str(index)] = {"box_xyxy": box, "mask": dict(encode_mask(seen.mask)), "visible_share": 1.0}
        yield round_to_rgb(canvas)
    subject = {
        "name": THING,
        "category": THING,
        "words": [THING],
        "shot": 0,
        "named": True,
        "quality": "good",
    }
    truth["subjects"].append(
        {**subject, "identity": asdict(scene.identity), "way": scene.way, "frames": where}
    )
    truth["shots"].append({"start_frame": 0, "end_frame": count, "camera": "static"})
    truth["num_frames"] = count


def render_plain_videos(
    folder: str | Path, *, videos: int, seed: int = 0, on_progress: Callable[[str], None] | None = None
) -> list[Path]:
    """Write scenes 0 to `videos` - 1 of a seed as mp4 files with captions and truth.

    Raises:
        InputError: `videos` < 1.
        OSError: the folder cannot be written.
    """
    if videos < 1:
        raise InputError(f"videos must be at least 1, not {videos}")
    done = []
    for index in range(videos):
        name = f"plain-{index:05d}"
        if index % EMPTY_EVERY == EMPTY_EVERY - 1:
            done.append(write_ground(sample_ground(np.random.default_rng([seed, index])), name, Path(folder)))
        else:
            done.append(write_scene(make_plain_scene(seed, index), name, Path(folder)))
        if on_progress and (index + 1) % 50 == 0:
            on_progress(f"{index + 1}/{videos}")
    return done


def render_pairs(
    folder: str | Path, *, pairs: int, seed: int = 0, on_progress: Callable[[str], None] | None = None
) -> Path:
    """Write pairs of pictures of one thing, for `reprise encode --pairs`.

    The reference shows the thing on white, the target is a moment of a scene. Curated references cannot be
    targets, because they show the thing as large as the frame, unlike videos.

    Returns:
        The list of the pairs, `pairs.jsonl`.

    Raises:
        InputError: `pairs` < 1.
        OSError: the folder cannot be written.
    """
    if pairs < 1:
        raise InputError(f"pairs must be at least 1, not {pairs}")
    folder = Path(folder)
    rows = []
    for each in ("references", "targets"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    for index in range(pairs):
        scene = make_plain_scene(seed, index)
        when = float(np.random.default_rng([seed, index, 21]).uniform(0, 1))
        target = round_to_rgb(draw_picture(scene.identity, scene.get_centre(when), scene.ground, SIDE)[0])
        row = {side: f"{side}s/{index:05d}.png" for side in ("reference", "target")}
        Image.fromarray(draw_identity(scene.identity)).save(folder / row["reference"])
        Image.fromarray(target).save(folder / row["target"])
        rows.append({**row, "caption": STILL, "subject": THING})
        if on_progress and (index + 1) % 500 == 0:
            on_progress(f"{index + 1}/{pairs}")
    listed = folder / "pairs.jsonl"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return listed
