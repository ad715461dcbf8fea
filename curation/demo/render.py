"""Render the scenes to mp4 files with captions and exact truth.

A folder of demo videos::

    NAME.mp4            h264, yuv420p, constant frame rate, no sound
    NAME.txt            the caption; some videos have NAME.json, {"caption": ...}, instead
    truth/NAME.json     boxes and masks, see below

Truth is plain JSON that can be read without this package::

    {"video": "NAME.mp4", "caption": "...", "fps": 25, "width": 640, "height": 360, "num_frames": 195,
     "shots": [{"start_frame": 0, "end_frame": 70, "camera": "pan right"}, ...],
     "subjects": [{"name": "astronaut", "category": "human", "words": ["human", "astronaut", ...],
                   "shot": 0, "named": true, "quality": "good",
                   "frames": {"0": {"box_xyxy": [x0, y0, x1, y1],
                                    "mask": {"size": [height, width], "counts": "<COCO RLE, ascii>"},
                                    "visible_share": 0.97}, ...}}, ...]}

* Frames count from 0 in the order in which the video decodes; ``end_frame`` is exclusive. Every frame has
  truth in which the subject shows at least ``MIN_PIXELS`` pixels.
* A mask holds the pixels of which the subject covers at least half of the visible content. Parts outside the
  frame, behind another actor or behind an occluder are not in it, nor are shadows.
* Boxes are tight around the visible mask, xyxy in pixels, right and bottom edges exclusive.
* ``visible_share`` is the visible part of the whole cut-out's area, 0..1.
* One entry of ``subjects`` is one actor in one shot. ``category`` is a common name of it. ``words`` holds all
  its names, ``category`` first. ``named`` is true if the caption names it; it is false for a distractor.
  ``quality`` is "good", or the reason to reject it: "dark", "blurred", "static" (it never moves).

All twelve videos take about 8 MB, and their truth 2 MB. During a fade the truth continues while the picture
darkens.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from curation.demo.backdrops import get_backdrop, get_canvas_size, get_occluder
from curation.demo.cutouts import F32, U8, get_cutout
from curation.demo.files import VideoSpec, write_truth_video
from curation.demo.scenes import SCENES, Actor, ActorPath, ActorPose, Camera, DemoScene, DemoShot, View
from reprise.errors import InputError

MIN_PIXELS: Final = 16
FADE_SECONDS: Final = 0.3
_SHADOW_STRENGTH: Final = 0.42
# Two videos at a time use two cores for compositing and encoding; more would only need memory.
_VIDEOS_AT_ONCE: Final = 2

Affine = npt.NDArray[np.float64]


# ---- geometry ------------------------------------------------------------------------------------


def get_camera_matrix(view: View, width: int, height: int) -> Affine:
    """Return the 2 x 3 matrix from backdrop pixels to frame pixels for a camera at ``view``."""
    canvas_width, canvas_height = get_canvas_size(width, height)
    x = canvas_width / 2 + view.x * (canvas_width - width / view.zoom) / 2
    y = canvas_height / 2 + view.y * (canvas_height - height / view.zoom) / 2
    return np.array(
        [[view.zoom, 0, width / 2 - view.zoom * x], [0, view.zoom, height / 2 - view.zoom * y]], np.float64
    )


def get_pose_matrix(
    pose: ActorPose, anchor: tuple[float, float], tall: float, width: int, height: int
) -> Affine:
    """Return the 2 x 3 matrix from cut-out pixels to frame pixels for an actor at ``pose``.

    ``anchor`` is the point, in cut-out pixels, at the pose's place and the centre of its turn. ``tall`` is
    the cut-out's height, px.
    """
    scale = pose.size * height / tall
    c, s = scale * math.cos(math.radians(pose.turn)), scale * math.sin(math.radians(pose.turn))
    x, y = pose.x * width, pose.y * height
    ax, ay = anchor
    return np.array([[c, -s, x - c * ax + s * ay], [s, c, y - s * ax - c * ay]], np.float64)


def _warp_layer(picture: F32, matrix: Affine, width: int, height: int) -> tuple[slice, slice, F32] | None:
    """Warp into the smallest part of the frame that holds it: (rows, columns, pixels); None: outside."""
    h, w = picture.shape[:2]
    corners = matrix @ np.array([[-1, w, w, -1], [-1, -1, h, h], [1, 1, 1, 1]], np.float64)
    x0, y0 = (max(0, math.floor(v)) for v in corners.min(axis=1))
    x1, y1 = min(width, math.ceil(corners[0].max()) + 1), min(height, math.ceil(corners[1].max()) + 1)
    if x1 <= x0 or y1 <= y0:
        return None
    local = matrix - np.array([[0, 0, x0], [0, 0, y0]])
    pixels = cv2.warpAffine(picture, local, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    return slice(y0, y1), slice(x0, x1), cast(F32, pixels)


# ---- actors ready to be drawn --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PreparedActor:
    """An actor at its largest size: premultiplied RGBA and a soft shadow (alpha only), float32, 0..255."""

    actor: Actor
    track: ActorPath
    picture: F32
    shadow: F32
    shadow_scale: float  # shadow pixels per picture pixel
    anchor: tuple[float, float]
    area: float  # of the alpha, in picture pixels
    lean: float  # of the ground, downwards to the right


def _prepare_actor(actor: Actor, track: ActorPath, height: int) -> _PreparedActor:
    source = get_cutout(actor.cutout)
    rgba = source.rgba[:, ::-1] if actor.flip else source.rgba
    # The picture is averaged to its largest size of the shot, so that bilinear warping does not alias.
    tall = max(8, round(max(track.begin.size, track.end.size) * height))
    scale = tall / rgba.shape[0]
    size = (max(1, round(rgba.shape[1] * scale)), tall)
    whole = rgba.astype(np.float32)
    whole[..., :3] *= whole[..., 3:] / 255 * np.array(actor.gain, np.float32)
    picture: Any = cv2.resize(whole, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if actor.blur:
        edge = math.ceil(actor.blur * tall * 3)
        picture = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
        picture = cv2.GaussianBlur(picture, (0, 0), actor.blur * tall)
    picture[..., 3] = np.clip(picture[..., 3], 0, 255)
    picture[..., :3] = np.clip(picture[..., :3], 0, picture[..., 3:])
    small = 0.25  # a quarter of the resolution is enough for a soft shadow
    edge = round(tall * 0.2)
    alpha = cv2.copyMakeBorder(picture[..., 3], edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=0)
    shadow = cv2.resize(alpha, None, fx=small, fy=small, interpolation=cv2.INTER_AREA)
    softness = tall * (0.06 if actor.shadow == "floor" else 0.03)
    shadow = cv2.GaussianBlur(shadow, (0, 0), max(1.0, softness * small))
    h, w = picture.shape[:2]
    stands = actor.shadow == "floor" or not source.whole
    # A ball turns about its centre even on the floor; other standing things turn little.
    anchor = (w / 2, h - 1.0) if stands and abs(track.end.turn - track.begin.turn) < 90 else (w / 2, h / 2)
    return _PreparedActor(
        actor=actor,
        track=track,
        picture=picture,
        shadow=cast(F32, shadow),
        shadow_scale=small,
        anchor=anchor,
        area=float((picture[..., 3] >= 127.5).sum()),
        lean=-source.lean if actor.flip else source.lean,
    )


def _get_shadow_matrix(
    drawn: _PreparedActor, pose: ActorPose, matrix: Affine, width: int, height: int
) -> Affine:
    """Return the matrix from shadow pixels to frame pixels: beside the actor, or flat at its feet."""
    edge = round(drawn.picture.shape[0] * 0.2)
    to_picture = np.array([[1 / drawn.shadow_scale, 0, -edge], [0, 1 / drawn.shadow_scale, -edge], [0, 0, 1]])
    full = matrix @ to_picture
    reach = pose.size * height
    if drawn.actor.shadow == "drop":
        full[:, 2] += (0.05 * reach, 0.06 * reach)
        return cast(Affine, full)
    # The anchor of a rolling thing is its centre: its feet are half its height below, at every turn.
    feet = pose.y * height + (0 if drawn.anchor[1] > drawn.picture.shape[0] * 0.75 else reach / 2)
    feet -= abs(drawn.lean) * drawn.picture.shape[1] / 2 * reach / drawn.picture.shape[0] * 0.6
    squash = 0.12
    full[1] *= squash
    full[1, 2] += feet * (1 - squash)
    full[1] += drawn.lean * full[0]
    full[1, 2] -= drawn.lean * pose.x * width
    return cast(Affine, full)


# ---- one shot ------------------------------------------------------------------------------------


def _draw_frame(
    drawn: list[_PreparedActor], shot: DemoShot, camera: Camera, t: float, scene: DemoScene
) -> tuple[U8, list[tuple[npt.NDArray[np.bool_], float]]]:
    """Draw the frame at ``t`` before exposure; return it and each actor's visible mask and whole area."""
    width, height = scene.width, scene.height
    view = get_camera_matrix(camera.get_view(t), width, height)
    place = get_backdrop(shot.place, width, height)
    frame = cast(U8, cv2.warpAffine(place, view, (width, height), flags=cv2.INTER_LINEAR))
    seen: list[tuple[F32, float]] = []  # alpha 0..1 over the whole frame, whole area

    def blend_layer(rows: slice, columns: slice, layer: F32) -> None:
        keep = 1 - layer[..., 3:] / 255
        part = frame[rows, columns]
        part[:] = np.clip(part * keep + layer[..., :3] + 0.5, 0, 255).astype(np.uint8)
        for alpha, _ in seen:
            alpha[rows, columns] *= keep[..., 0]

    for each in drawn:
        pose = each.track.get_pose(t)
        matrix = get_pose_matrix(pose, each.anchor, each.picture.shape[0], width, height)
        if each.actor.shadow:
            cast_shadow = _warp_layer(
                each.shadow, _get_shadow_matrix(each, pose, matrix, width, height), width, height
            )
            if cast_shadow:
                rows, columns, shade = cast_shadow
                part = frame[rows, columns]
                part[:] = (part * (1 - _SHADOW_STRENGTH / 255 * shade[..., None])).astype(np.uint8)
        layer = _warp_layer(each.picture, matrix, width, height)
        alpha = np.zeros((height, width), np.float32)
        if layer:
            blend_layer(*layer)
            alpha[layer[0], layer[1]] = layer[2][..., 3] / 255
        whole = each.area * (pose.size * height / each.picture.shape[0]) ** 2
        seen.append((cast(F32, alpha), whole))
    if shot.occluder:
        front = get_occluder(shot.occluder, width, height)
        blend_layer(
            slice(0, height), slice(0, width), cast(F32, cv2.warpAffine(front, view, (width, height)))
        )
    return frame, [(alpha >= 0.5, whole) for alpha, whole in seen]


def _describe_mask(mask: npt.NDArray[np.bool_], whole: float) -> dict[str, Any] | None:
    """Describe one subject in one frame; None: it has fewer than ``MIN_PIXELS`` visible pixels."""
    visible = int(mask.sum())
    if visible < MIN_PIXELS:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "box_xyxy": [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1],
        "mask": {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")},
        "visible_share": round(min(1.0, visible / whole), 3),
    }


def _jitter_path(track: ActorPath, rng: np.random.Generator) -> ActorPath:
    """Vary a path by the seed: up to 1.5 % of the frame sideways, and up to 3 % in size.

    It does not move up, because the cut edge of a portrait must stay below the frame.
    """
    shift, larger = rng.uniform(-0.015, 0.015), rng.uniform(0.97, 1.03)

    def shift_pose(pose: ActorPose) -> ActorPose:
        return replace(pose, x=pose.x + shift, size=pose.size * larger)

    return replace(track, begin=shift_pose(track.begin), end=shift_pose(track.end))


# ---- one video -----------------------------------------------------------------------------------


def _render_frames(scene: DemoScene, rng: np.random.Generator, truth: dict[str, Any]) -> Iterator[U8]:
    """Yield all frames of the scene, RGB, and fill ``truth``."""
    start = 0
    for number, shot in enumerate(scene.shots):
        count = round(shot.seconds * scene.fps)
        drawn = [_prepare_actor(a, _jitter_path(a.track, rng), scene.height) for a in shot.actors]
        entries: list[dict[str, Any]] = [
            {
                "name": a.cutout,
                "category": get_cutout(a.cutout).words[0],
                "words": list(get_cutout(a.cutout).words),
                "shot": number,
                "named": a.named,
                "quality": a.quality,
                "frames": {},
            }
            for a in shot.actors
        ]
        truth["shots"].append({"start_frame": start, "end_frame": start + count, "camera": shot.camera.name})
        truth["subjects"].extend(entries)
        fade = max(1, round(FADE_SECONDS * scene.fps))
        for index in range(count):
            frame, seen = _draw_frame(drawn, shot, shot.camera, index / max(1, count - 1), scene)
            for entry, (mask, whole) in zip(entries, seen, strict=True):
                if found := _describe_mask(mask, whole):
                    entry["frames"][str(start + index)] = found
            gain = shot.exposure
            if shot.fade_in:
                gain *= min(1.0, (index + 1) / fade)
            if shot.fade_out:
                gain *= min(1.0, (count - index) / fade)
            yield frame if gain == 1.0 else cast(U8, cv2.convertScaleAbs(frame, alpha=gain))
        start += count
    truth["num_frames"] = start


def render_scene(scene: DemoScene, folder: Path, *, seed: int = 0) -> Path:
    """Render one scene into ``folder``, which is made if needed: video, sidecar, truth. Return the path."""
    rng = np.random.default_rng([seed, zlib.crc32(scene.name.encode())])
    film = VideoSpec(
        scene.name, scene.caption, scene.width, scene.height, scene.fps, scene.sidecar, grey=scene.grey
    )
    return write_truth_video(film, folder, partial(_render_frames, scene, rng))


def render_demo(
    folder: Path,
    *,
    seed: int = 0,
    videos: int = 12,
    short_side: int | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Render the demo videos with captions and truth. The module describes the layout.

    The same ``seed`` gives the same truth, byte for byte, and the same pixels. Existing files are replaced.

    Args:
        folder: for the videos; made if needed.
        seed: shifts and scales every path a little.
        videos: number of videos, at least 1. After the last scene they start again as NAME-2, NAME-3, ...
            with other paths.
        short_side: of the frames, px, rounded to even; None: that of the scene, 360 or 480.
        on_progress: called with one line per finished video.

    Returns:
        The paths of the videos, in the order of the scenes.

    Raises:
        InputError: ``videos`` < 1.
        OSError: the folder cannot be written.
    """
    if videos < 1:
        raise InputError(f"videos must be at least 1, not {videos}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scenes = []
    for number in range(videos):
        scene, round_ = SCENES[number % len(SCENES)], number // len(SCENES) + 1
        if short_side is not None:
            scale = short_side / min(scene.width, scene.height) / 2
            scene = replace(
                scene, width=2 * round(scale * scene.width), height=2 * round(scale * scene.height)
            )
        scenes.append(scene if round_ == 1 else replace(scene, name=f"{scene.name}-{round_}"))
    for scene in scenes[: len(SCENES)]:  # before the threads start, not in two at the same time
        for shot in scene.shots:
            for actor in shot.actors:
                get_cutout(actor.cutout)
    done: list[Path] = []
    with ThreadPoolExecutor(_VIDEOS_AT_ONCE) as pool:
        for path in pool.map(partial(render_scene, folder=folder, seed=seed), scenes):
            done.append(path)
            if on_progress:
                on_progress(f"{len(done)}/{len(scenes)} {path.name}")
    return done
