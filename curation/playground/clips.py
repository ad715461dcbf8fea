"""Moving pictures of the playground: the things of a shot, their paths, the camera and the caption.

A **clip** is one video: a caption and one to three **shots** with hard cuts between them. In a shot,
**movers** move from one place in the frame to another at constant speed, and turn and grow on the way. The
camera pans over a backdrop. Places and sizes are shares of the frame; `t` runs from 0 (first frame) to 1
(last frame). The caption names the things that are in every shot of the clip, but no distractors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np

from curation.imaging.codec import RGB
from curation.playground.scenes import (
    Thing,
    ThingTruth,
    compose_things,
    round_to_rgb,
    sample_names,
    sample_rival,
)
from curation.playground.world import (
    F32,
    NAMES,
    PERSON,
    CanvasPlacement,
    Figure,
    Gaze,
    ThingLook,
    draw_backdrop,
    sample_body,
    sample_look,
)  # fmt: skip

_BACKDROP_SCALE: Final = 1.5  # the backdrop's side, in frames: how far a camera can pan
CAMERAS: Final = {
    "static": (0.0, 0.0),
    "pan right": (1.0, 0.0),
    "pan left": (-1.0, 0.0),
    "tilt up": (0.0, -1.0),
    "tilt down": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class MoverPose:
    """The pose of a thing at one moment.

    `x`, `y`: centre, shares of the frame's width and height. `half`: half the thing's side, share of the
    frame's shorter side. `turn` and the angles of a person's gaze are in degrees.
    """

    x: float
    y: float
    half: float
    turn: float = 0.0
    gaze: Gaze = field(default_factory=Gaze)

    def interpolate_to(self, other: MoverPose, t: float) -> MoverPose:
        """Return the pose at a share `t`, 0..1, of the way to another pose."""

        def mix_values(a: float, b: float) -> float:
            return a + (b - a) * t

        gaze = Gaze(
            mix_values(self.gaze.yaw, other.gaze.yaw),
            mix_values(self.gaze.pitch, other.gaze.pitch),
            mix_values(self.gaze.roll, other.gaze.roll),
        )
        return MoverPose(
            mix_values(self.x, other.x),
            mix_values(self.y, other.y),
            mix_values(self.half, other.half),
            mix_values(self.turn, other.turn),
            gaze,
        )


@dataclass(frozen=True, slots=True)
class Mover:
    """A thing and its path through a shot. `named`: the caption names it."""

    name: str
    begin: MoverPose
    end: MoverPose
    named: bool = True
    look: ThingLook = field(default_factory=ThingLook)
    body: Figure = field(default_factory=Figure)

    def get_thing(self, t: float, width: int, height: int) -> Thing:
        """Return the thing to draw at `t`, 0..1, in a frame of `width` x `height` px."""
        pose = self.begin.interpolate_to(self.end, t)
        where = CanvasPlacement(pose.x * width, pose.y * height, pose.half * min(width, height), pose.turn)
        return Thing(self.name, where, self.look, self.body, pose.gaze)


@dataclass(frozen=True, slots=True)
class PlaygroundShot:
    """A shot of `frames` pictures. `movers`: back to front; `ground`: seed of the backdrop; see `CAMERAS`."""

    frames: int
    camera: str
    movers: tuple[Mover, ...]
    ground: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlaygroundClip:
    """One video of `width` x `height` px (even numbers) at `fps` frames per second."""

    name: str
    caption: str
    shots: tuple[PlaygroundShot, ...]
    width: int = 256
    height: int = 192
    fps: int = 16


# ---- drawing -------------------------------------------------------------------------------------


def draw_shot(shot: PlaygroundShot, width: int, height: int) -> Iterator[tuple[RGB, list[ThingTruth | None]]]:
    """Yield each frame of a shot, (height, width, 3), and each mover's truth; None: too little is visible."""
    room = draw_backdrop(
        round(width * _BACKDROP_SCALE), round(height * _BACKDROP_SCALE), np.random.default_rng(shot.ground)
    )
    for index in range(shot.frames):
        t = index / max(1, shot.frames - 1)
        ground = _crop_view(room, shot.camera, t, width, height)
        canvas, truths = compose_things(ground, [mover.get_thing(t, width, height) for mover in shot.movers])
        yield round_to_rgb(canvas), truths


def _crop_view(room: F32, camera: str, t: float, width: int, height: int) -> F32:
    dx, dy = CAMERAS[camera]
    spare_x, spare_y = room.shape[1] - width, room.shape[0] - height
    x = spare_x * (0.5 + 0.45 * dx * (2 * t - 1))
    y = spare_y * (0.5 + 0.45 * dy * (2 * t - 1))
    move = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
    return cv2.warpAffine(room, move, (width, height), flags=cv2.INTER_LINEAR).astype(np.float32)


# ---- captions ------------------------------------------------------------------------------------


def add_article(name: str) -> str:
    """Put the indefinite article before a name."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _describe_way(mover: Mover) -> str:
    dx, dy = mover.end.x - mover.begin.x, mover.end.y - mover.begin.y
    if abs(dx) >= abs(dy):
        return "moves to the right" if dx > 0 else "moves to the left"
    return "moves down" if dy > 0 else "moves up"


def write_caption(shots: Sequence[PlaygroundShot]) -> str:
    """Write a sentence with every named mover of the first shot, and the direction of a single one."""
    named = [mover for mover in shots[0].movers if mover.named]
    if len(named) == 1:
        sentence = f"{add_article(named[0].name)} {_describe_way(named[0])}"
    else:
        listed = ", ".join(add_article(mover.name) for mover in named[:-1])
        sentence = f"{listed} and {add_article(named[-1].name)} move about"
    camera = shots[0].camera
    if len(shots) == 1 and camera != "static":
        verb, _, way = camera.partition(" ")
        sentence += f" while we {verb} {way}"
    return sentence[0].upper() + sentence[1:] + "."


# ---- clips by number -----------------------------------------------------------------------------


def _sample_path(name: str, rng: np.random.Generator, number: int, count: int) -> tuple[MoverPose, MoverPose]:
    """Sample a path to a place at least a fifth of the frame away. `count` movers have separate lanes."""
    lane = (number + 0.5) / count
    across = rng.uniform() < 0.7
    person = name == PERSON
    half = float(rng.uniform(0.26, 0.36) if person else rng.uniform(0.14, 0.24))
    side = 1 if rng.uniform() < 0.5 else -1
    spread = rng.uniform(0.1, 0.3)
    middle = rng.uniform(0.4, 0.6)
    if across:
        y = 0.5 if count == 1 else 0.22 + 0.56 * lane
        begin, end = (middle - side * spread, y), (middle + side * spread, y + rng.uniform(-0.08, 0.08))
    else:
        x = 0.5 if count == 1 else 0.18 + 0.64 * lane
        begin, end = (
            (x, middle - side * spread * 0.8),
            (x + rng.uniform(-0.08, 0.08), middle + side * spread * 0.8),
        )
    turn = 0.0 if person else float(rng.uniform(-35, 35))
    spin = 0.0 if person else float(rng.uniform(-30, 30))
    yaw = float(rng.uniform(-75, 75)) if person and rng.uniform() < 0.6 else 0.0
    return (
        MoverPose(float(begin[0]), float(begin[1]), half, turn, Gaze(yaw, 0, 0)),
        MoverPose(
            float(end[0]),
            float(end[1]),
            half * float(rng.uniform(0.9, 1.15)),
            turn + spin,
            Gaze(-0.2 * yaw, 0, 0),
        ),
    )


def make_clip(seed: int, index: int, *, width: int = 256, height: int = 192, fps: int = 16) -> PlaygroundClip:
    """Make the clip with this number. Equal arguments give equal clips.

    It has 1 to 3 shots of 2 to 3 seconds and 1 to 3 named things; half of the clips also have a rival of one
    of them.

    Args:
        seed: of the world.
        index: number of the clip.
        width: px, even.
        height: px, even.
        fps: frames per second.
    """
    rng = np.random.default_rng([seed, index, 7])
    wanted = int(rng.integers(1, 4))
    names = list(dict.fromkeys(sample_names(wanted, rng, people=0.25)))
    looks = [(sample_look(rng), sample_body(rng)) for _ in names]
    extra = sample_rival(names[0], rng) if rng.uniform() < 0.5 else None
    if extra in names:
        extra = None
    shots = []
    for number in range(int(rng.integers(1, 4))):
        cast_list = [(name, True, *look) for name, look in zip(names, looks, strict=True)]
        if extra is not None:
            cast_list.append((extra, False, sample_look(rng), sample_body(rng)))
        lanes = rng.permutation(len(cast_list))
        movers = []
        for place, (name, named, look, body) in zip(lanes, cast_list, strict=True):
            begin, end = _sample_path(name, rng, int(place), len(cast_list))
            movers.append(Mover(name, begin, end, named, look, body))
        order = rng.permutation(len(movers))
        camera = list(CAMERAS)[int(rng.integers(len(CAMERAS)))]
        frames = round(fps * float(rng.uniform(2.1, 3.0)))
        shots.append(PlaygroundShot(frames, camera, tuple(movers[i] for i in order), (seed, index, number)))
    return PlaygroundClip(f"playground-{index:04d}", write_caption(shots), tuple(shots), width, height, fps)


def list_names() -> tuple[str, ...]:
    """List every name that a caption can hold."""
    return (*NAMES, PERSON)
