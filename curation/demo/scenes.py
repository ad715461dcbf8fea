"""The scenes of the demo videos: their shots, actors and paths.

A **scene** is one video: one caption and two or three **shots**. A shot has a backdrop, a camera over it,
**actors** from back to front, and in some shots an occluder in front of all. Positions and sizes are shares
of the frame, so a scene looks the same at any resolution. ``t`` runs from 0 (first frame) to 1 (last frame).

A scene shows the things that its caption names (``named``). Three scenes test rejections: ``no-dog`` (the dog
never appears), ``title-card`` (nothing moves), ``night-and-blur`` (too dark, too blurred). Actors that the
caption does not name are distractors. Captions name nothing else, so everything that is found by a caption is
an actor or a mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Quality = Literal["good", "dark", "blurred", "static"]


@dataclass(frozen=True, slots=True)
class ActorPose:
    """The pose of an actor.

    ``x``, ``y`` of its anchor: shares of the frame's width and height. ``size``: its height as a share of the
    frame's height. ``turn``: degrees, clockwise.
    """

    x: float
    y: float
    size: float
    turn: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorPath:
    """A path from ``begin`` to ``end`` at constant speed, with bobs.

    ``bob`` is the height of a bob (share of the frame's height), ``sway`` its turn (degrees, in both
    directions) and ``beats`` their number in the shot. With ``glide`` the speed is zero at both ends instead
    of constant.
    """

    begin: ActorPose
    end: ActorPose
    bob: float = 0.0
    sway: float = 0.0
    beats: float = 3.0
    glide: bool = False

    def get_pose(self, t: float) -> ActorPose:
        """Return the pose at ``t``, 0..1."""
        share = t * t * (3 - 2 * t) if self.glide else t
        wave = float(np.sin(2 * np.pi * self.beats * t))
        a, b = self.begin, self.end
        return ActorPose(
            a.x + (b.x - a.x) * share,
            a.y + (b.y - a.y) * share - self.bob * abs(wave),
            a.size + (b.size - a.size) * share,
            a.turn + (b.turn - a.turn) * share + self.sway * wave,
        )


@dataclass(frozen=True, slots=True)
class View:
    """A window on the backdrop: ``x``, ``y`` in -1..1 (from one edge to the other), ``zoom`` >= 1."""

    x: float = 0.0
    y: float = 0.0
    zoom: float = 1.0


@dataclass(frozen=True, slots=True)
class Camera:
    """A window that moves from ``begin`` to ``end`` at constant speed; ``name`` is its name in the truth."""

    name: str
    begin: View
    end: View

    def get_view(self, t: float) -> View:
        """Return the view at ``t``, 0..1."""
        a, b = self.begin, self.end
        return View(a.x + (b.x - a.x) * t, a.y + (b.y - a.y) * t, a.zoom + (b.zoom - a.zoom) * t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A cut-out with its path through a shot.

    ``named``: the caption names it. ``flip``: mirrored. ``gain``: colour multiplier. ``blur``: Gaussian sigma
    as a share of its height. ``shadow``: "floor" is under its feet, "drop" is beside it (in a view from
    above). Its anchor is the middle of its lower edge if it stands (with a floor shadow, or cut off by its
    photograph), else its centre.
    """

    cutout: str
    track: ActorPath
    named: bool = True
    flip: bool = False
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0
    shadow: Literal["floor", "drop"] | None = None
    quality: Quality = "good"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoShot:
    """A shot of ``seconds`` at ``place``.

    ``exposure`` multiplies every pixel; fades are to and from black.
    """

    place: str
    seconds: float
    camera: Camera
    actors: tuple[Actor, ...] = ()
    occluder: str | None = None
    exposure: float = 1.0
    fade_in: bool = False
    fade_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoScene:
    """One video of ``width`` x ``height`` px (even) at ``fps``, its caption and the kind of its sidecar."""

    name: str
    caption: str
    shots: tuple[DemoShot, ...]
    width: int = 640
    height: int = 360
    fps: int = 25
    sidecar: Literal["txt", "json"] = "txt"
    grey: bool = False


# ---- shorthand -----------------------------------------------------------------------------------

STATIC: Final = Camera("static", View(), View())
PAN_RIGHT: Final = Camera("pan right", View(-0.7), View(0.7))
PAN_LEFT: Final = Camera("pan left", View(0.7), View(-0.7))
RISE: Final = Camera("tilt up", View(0, 0.8), View(0, -0.8))
ZOOM_IN: Final = Camera("zoom in", View(0, 0.2, 1.0), View(0, 0.2, 1.22))
ZOOM_ON_GARAGE: Final = Camera("zoom in", View(0.7, -0.2, 1.0), View(0.7, -0.2, 1.15))
ZOOM_OUT: Final = Camera("zoom out", View(0.1, 0, 1.2), View(0.1, 0, 1.0))
STATIC_ON_PAD: Final = Camera("static", View(0.1, 0.7), View(0.1, 0.7))


def make_path(
    begin: ActorPose,
    end: ActorPose,
    *,
    bob: float = 0,
    sway: float = 0,
    beats: float = 3,
    glide: bool = False,
) -> ActorPath:
    """Make a path; the options are those of `ActorPath`."""
    return ActorPath(begin=begin, end=end, bob=bob, sway=sway, beats=beats, glide=glide)


# ---- the scenes ----------------------------------------------------------------------------------

SCENES: Final[tuple[DemoScene, ...]] = (
    DemoScene(
        name="astronaut-explores",
        caption="An astronaut dressed in orange explores one strange place after another.",
        shots=(
            DemoShot(
                place="moonscape", seconds=2.8, camera=PAN_RIGHT,
                actors=(Actor(cutout="astronaut", track=make_path(
                    ActorPose(0.26, 1.05, 0.80), ActorPose(0.68, 1.05, 0.84), bob=0.03, sway=1.6)),),
            ),
            DemoShot(
                place="garage", seconds=2.4, camera=ZOOM_ON_GARAGE,
                actors=(Actor(cutout="astronaut", track=make_path(
                    ActorPose(0.78, 1.06, 0.80), ActorPose(0.42, 1.06, 0.90),
                    bob=0.02, sway=1.2), flip=True),),
            ),
            DemoShot(
                place="meadow", seconds=2.6, camera=STATIC,
                actors=(Actor(cutout="astronaut", track=make_path(
                    ActorPose(0.22, 1.05, 0.68), ActorPose(0.66, 1.05, 0.78), bob=0.03, sway=1.6)),),
            ),
        ),
    ),
    DemoScene(
        name="cat-prowls", caption="A tabby cat prowls from place to place.", width=854, height=480, fps=24,
        shots=(
            DemoShot(
                place="street", seconds=2.6, camera=PAN_LEFT,
                actors=(Actor(cutout="cat", track=make_path(
                    ActorPose(0.30, 1.04, 0.66), ActorPose(0.64, 1.04, 0.70), bob=0.02, sway=2)),),
            ),
            DemoShot(
                place="lawn", seconds=2.4, camera=STATIC,
                actors=(Actor(cutout="cat", track=make_path(
                    ActorPose(0.70, 1.05, 0.62), ActorPose(0.30, 1.05, 0.78), bob=0.02, sway=2), flip=True),),
            ),
            DemoShot(
                place="moonscape", seconds=2.6, camera=ZOOM_IN,
                actors=(Actor(cutout="cat", track=make_path(
                    ActorPose(0.24, 1.05, 0.72), ActorPose(0.72, 1.05, 0.66), bob=0.03, sway=2)),),
            ),
        ),
    ),
    DemoScene(
        name="red-cup", caption="A red cup slides to and fro.", fps=30,
        shots=(
            DemoShot(
                place="table", seconds=2.4, camera=STATIC,
                actors=(Actor(cutout="cup", shadow="drop", track=make_path(
                    ActorPose(0.27, 0.48, 0.62, -6), ActorPose(0.72, 0.54, 0.62, 12), glide=True)),),
            ),
            DemoShot(
                place="desk", seconds=2.4, camera=PAN_RIGHT,
                actors=(Actor(cutout="cup", shadow="drop", track=make_path(
                    ActorPose(0.72, 0.42, 0.56, 8), ActorPose(0.36, 0.60, 0.62, -10))),),
            ),
            DemoShot(
                place="gravel", seconds=2.2, camera=ZOOM_OUT,
                actors=(Actor(cutout="cup", shadow="drop", track=make_path(
                    ActorPose(0.26, 0.62, 0.58, 4), ActorPose(0.70, 0.42, 0.52, -8))),),
            ),
        ),
    ),
    DemoScene(
        name="motorcycle-and-cat", caption="A red motorcycle rides by while a cat looks on.",
        width=854, height=480,
        shots=(
            DemoShot(
                place="street", seconds=2.6, camera=PAN_RIGHT,
                actors=(
                    Actor(cutout="motorcycle", shadow="floor", track=make_path(
                        ActorPose(0.24, 0.86, 0.58), ActorPose(0.56, 0.88, 0.60),
                        bob=0.006, sway=0.6, beats=7)),
                    Actor(cutout="cat", track=make_path(
                        ActorPose(0.92, 1.05, 0.52), ActorPose(0.80, 1.05, 0.54),
                        bob=0.015, sway=2), flip=True),
                ),
            ),
            DemoShot(
                place="meadow", seconds=2.4, camera=STATIC, occluder="pillar",
                actors=(Actor(cutout="motorcycle", shadow="floor", track=make_path(
                    ActorPose(0.22, 0.90, 0.62), ActorPose(0.80, 0.92, 0.66),
                    bob=0.006, sway=0.6, beats=7)),),
            ),
            DemoShot(
                place="moonscape", seconds=2.4, camera=PAN_LEFT,
                actors=(
                    Actor(cutout="motorcycle", shadow="floor", flip=True, track=make_path(
                        ActorPose(0.74, 0.82, 0.54), ActorPose(0.46, 0.84, 0.58),
                        bob=0.008, sway=0.8, beats=6)),
                    Actor(cutout="cat", track=make_path(
                        ActorPose(0.10, 1.05, 0.50), ActorPose(0.20, 1.05, 0.52), bob=0.015, sway=2)),
                ),
            ),
        ),
    ),
    DemoScene(
        name="rocket-climbs", caption="A rocket climbs higher and higher.", width=480, height=854, fps=24,
        sidecar="json",
        shots=(
            DemoShot(
                place="launch", seconds=2.6, camera=STATIC_ON_PAD,
                actors=(Actor(cutout="shuttle", track=make_path(
                    ActorPose(0.46, 0.66, 0.46), ActorPose(0.52, 0.34, 0.44, 3), sway=0.4, beats=9)),),
            ),
            DemoShot(
                place="planet", seconds=2.4, camera=RISE,
                actors=(Actor(cutout="shuttle", track=make_path(
                    ActorPose(0.34, 0.72, 0.46, 4), ActorPose(0.44, 0.36, 0.44, 12))),),
            ),
            DemoShot(
                place="stars", seconds=2.2, camera=STATIC,
                actors=(Actor(cutout="shuttle", track=make_path(
                    ActorPose(0.30, 0.66, 0.50, 16), ActorPose(0.64, 0.38, 0.40, 26))),),
            ),
        ),
    ),
    DemoScene(
        name="astronaut-and-cup", caption="An astronaut drifts along next to a floating cup.",
        shots=(
            DemoShot(
                place="moonscape", seconds=3.0, camera=PAN_LEFT, fade_out=True,
                actors=(
                    Actor(cutout="astronaut", track=make_path(
                        ActorPose(0.26, 1.06, 0.74, -3), ActorPose(0.46, 1.05, 0.78, 3),
                        bob=0.01, sway=1, beats=1)),
                    Actor(cutout="cup", track=make_path(
                        ActorPose(0.86, 0.60, 0.36, -14), ActorPose(0.76, 0.32, 0.38, 16))),
                ),
            ),
            DemoShot(
                place="stars", seconds=3.0, camera=ZOOM_IN, fade_in=True,
                actors=(
                    Actor(cutout="astronaut", flip=True, track=make_path(
                        ActorPose(0.76, 1.06, 0.72, 3), ActorPose(0.60, 1.06, 0.80, -2),
                        bob=0.01, sway=1, beats=1)),
                    Actor(cutout="cup", track=make_path(
                        ActorPose(0.18, 0.34, 0.38, 10), ActorPose(0.24, 0.64, 0.42, -16))),
                ),
            ),
        ),
    ),
    DemoScene(
        name="horse-trots", caption="A brown horse trots past.",
        shots=(
            DemoShot(
                place="meadow", seconds=2.6, camera=PAN_RIGHT, occluder="fence",
                actors=(Actor(cutout="horse", shadow="floor", track=make_path(
                    ActorPose(0.28, 0.86, 0.62), ActorPose(0.64, 0.87, 0.64), bob=0.02, sway=1.5, beats=4)),),
            ),
            DemoShot(
                place="street", seconds=2.4, camera=STATIC, occluder="pillar",
                actors=(Actor(cutout="horse", shadow="floor", track=make_path(
                    ActorPose(0.22, 0.92, 0.72), ActorPose(0.78, 0.92, 0.72), bob=0.02, sway=1.5, beats=4)),),
            ),
            DemoShot(
                place="moonscape", seconds=2.4, camera=PAN_LEFT,
                actors=(Actor(cutout="horse", shadow="floor", flip=True, track=make_path(
                    ActorPose(0.72, 0.90, 0.66), ActorPose(0.36, 0.92, 0.72), bob=0.02, sway=1.5, beats=4)),),
            ),
        ),
    ),
    DemoScene(
        name="gold-coin", caption="A gold coin rolls by.", sidecar="json",
        shots=(
            DemoShot(
                place="gravel", seconds=2.4, camera=STATIC,
                actors=(Actor(cutout="coin", shadow="drop", track=make_path(
                    ActorPose(0.20, 0.40, 0.46), ActorPose(0.78, 0.58, 0.46, 220))),),
            ),
            DemoShot(
                place="bricks", seconds=2.4, camera=PAN_LEFT,
                actors=(
                    Actor(cutout="ball", named=False, shadow="drop", track=make_path(
                        ActorPose(0.80, 0.72, 0.34), ActorPose(0.66, 0.28, 0.34, -60))),
                    Actor(cutout="coin", shadow="drop", track=make_path(
                        ActorPose(0.18, 0.62, 0.48), ActorPose(0.40, 0.40, 0.52, 130))),
                ),
            ),
            DemoShot(
                place="lawn", seconds=2.2, camera=ZOOM_IN,
                actors=(Actor(cutout="coin", shadow="drop", track=make_path(
                    ActorPose(0.76, 0.36, 0.42), ActorPose(0.28, 0.62, 0.50, -200))),),
            ),
        ),
    ),
    DemoScene(
        name="man-films", caption="A man dressed in black films whatever passes.", fps=24, grey=True,
        shots=(
            DemoShot(
                place="meadow", seconds=2.6, camera=PAN_LEFT,
                actors=(Actor(cutout="man", track=make_path(
                    ActorPose(0.24, 1.04, 0.86), ActorPose(0.46, 1.04, 0.90), bob=0.01, sway=1.2)),),
            ),
            DemoShot(
                place="street", seconds=2.6, camera=STATIC,
                actors=(
                    Actor(cutout="ball", named=False, shadow="floor", gain=(1.5, 1.5, 1.5), track=make_path(
                        ActorPose(0.10, 0.84, 0.26), ActorPose(0.52, 0.88, 0.28, 300))),
                    Actor(cutout="man", flip=True, track=make_path(
                        ActorPose(0.84, 1.04, 0.84), ActorPose(0.64, 1.04, 0.92), bob=0.01, sway=1.2)),
                ),
            ),
            DemoShot(
                place="gravel", seconds=2.4, camera=ZOOM_OUT,
                actors=(Actor(cutout="man", track=make_path(
                    ActorPose(0.22, 1.05, 0.92), ActorPose(0.62, 1.05, 0.84), bob=0.01, sway=1.2)),),
            ),
        ),
    ),
    DemoScene(
        name="no-dog", caption="A dog runs as fast as it can.",
        shots=(
            DemoShot(
                place="lawn", seconds=2.4, camera=STATIC,
                actors=(Actor(cutout="ball", named=False, shadow="drop", track=make_path(
                    ActorPose(0.16, 0.60, 0.40), ActorPose(0.84, 0.42, 0.40, 240))),),
            ),
            DemoShot(place="meadow", seconds=2.4, camera=PAN_RIGHT),
        ),
    ),
    DemoScene(
        name="title-card", caption="A cup rests beside the title.",
        shots=(
            DemoShot(
                place="title", seconds=3.0, camera=STATIC,
                actors=(Actor(cutout="cup", quality="static", track=make_path(
                    ActorPose(0.87, 0.82, 0.30), ActorPose(0.87, 0.82, 0.30))),),
            ),
            DemoShot(
                place="table", seconds=2.4, camera=STATIC,
                actors=(Actor(cutout="cup", quality="static", shadow="drop", track=make_path(
                    ActorPose(0.50, 0.50, 0.62), ActorPose(0.50, 0.50, 0.62))),),
            ),
        ),
    ),
    DemoScene(
        name="night-and-blur", caption="A cat wanders through the night and a clock swings by.",
        shots=(
            DemoShot(
                place="hall", seconds=2.6, camera=STATIC, exposure=0.09,
                actors=(Actor(cutout="cat", quality="dark", track=make_path(
                    ActorPose(0.26, 1.05, 0.72), ActorPose(0.70, 1.05, 0.76), bob=0.02, sway=2)),),
            ),
            DemoShot(
                place="street", seconds=2.4, camera=STATIC,
                actors=(Actor(cutout="clock", quality="blurred", blur=0.03, track=make_path(
                    ActorPose(0.22, 0.36, 0.52), ActorPose(0.76, 0.40, 0.52), glide=True)),),
            ),
        ),
    ),
)  # fmt: skip
