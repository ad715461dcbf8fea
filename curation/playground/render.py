"""Render clips to mp4 files with captions and exact truth.

The folder and its truth have the format of `curation.demo.render`, so the same code reads both::

    playground-0000.mp4         h264, yuv420p, constant frame rate, no sound
    playground-0000.txt         the caption; every other video has .json, {"caption": ...}, instead
    truth/playground-0000.json  boxes and masks, frame by frame

`name` and `category` are both the name in captions, "red star". A frame of a person also has `gaze` (yaw,
pitch, roll in degrees) and `face_xyxy`. `quality` is "good", or the reason to reject a subject in this shot:
"hidden" (less than half of it is visible in every frame), "averted" (a person who never looks at the camera).
`taxonomy.yaml` beside this file holds all names; profile=playground uses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from curation.demo.files import VideoSpec, write_truth_video
from curation.imaging.codec import RGB, encode_mask
from curation.playground.clips import PlaygroundClip, draw_shot, make_clip
from curation.playground.scenes import ThingTruth
from reprise.errors import InputError

WHOLE_SHARE: Final = 0.5
FRONTAL_DEGREES: Final = 45.0
TAXONOMY: Final = Path(__file__).with_name("taxonomy.yaml")


def _describe_frame(seen: ThingTruth) -> dict[str, Any]:
    found: dict[str, Any] = {
        "box_xyxy": [int(v) for v in seen.box],
        "mask": dict(encode_mask(seen.mask)),
        "visible_share": round(seen.share, 3),
    }
    if seen.face is not None:
        gaze = seen.face.gaze
        found["gaze"] = [round(v, 2) for v in (gaze.yaw, gaze.pitch, gaze.roll)]
        found["face_xyxy"] = [round(v, 2) for v in seen.face.box]
    return found


def _render_frames(clip: PlaygroundClip, truth: dict[str, Any]) -> Iterator[RGB]:
    """Yield all frames of the clip and fill `truth`."""
    start = 0
    for number, shot in enumerate(clip.shots):
        entries: list[dict[str, Any]] = [
            {
                "name": mover.name,
                "category": mover.name,
                "words": [mover.name],
                "shot": number,
                "named": mover.named,
                "quality": "good",
                "frames": {},
            }
            for mover in shot.movers
        ]
        truth["shots"].append({"start_frame": start, "end_frame": start + shot.frames, "camera": shot.camera})
        truth["subjects"].extend(entries)
        for index, (image, seen) in enumerate(draw_shot(shot, clip.width, clip.height)):
            for entry, each in zip(entries, seen, strict=True):
                if each is not None:
                    entry["frames"][str(start + index)] = _describe_frame(each)
            yield image
        for entry in entries:
            entry["quality"] = _rate_quality(list(entry["frames"].values()))
        start += shot.frames
    truth["num_frames"] = start


def _rate_quality(frames: Sequence[dict[str, Any]]) -> str:
    """Rate a subject of one shot from its truth in every frame: "good", or the reason to reject it."""
    if max((frame["visible_share"] for frame in frames), default=0.0) < WHOLE_SHARE:
        return "hidden"
    if all("gaze" in frame and _measure_gaze_angle(*frame["gaze"]) > FRONTAL_DEGREES for frame in frames):
        return "averted"
    return "good"


def _measure_gaze_angle(yaw: float, pitch: float, _roll: float) -> float:
    """Measure the angle between a gaze and the direction to the camera, degrees."""
    return math.degrees(math.acos(math.cos(math.radians(yaw)) * math.cos(math.radians(pitch))))


def render_clip(clip: PlaygroundClip, folder: Path, *, sidecar: str = "txt") -> Path:
    """Render one clip into `folder`, which is made if needed: video, sidecar ("txt" or "json"), truth."""
    film = VideoSpec(clip.name, clip.caption, clip.width, clip.height, clip.fps, sidecar, crf=18, threads=1)
    return write_truth_video(film, folder, partial(_render_frames, clip))


def render_playground(
    folder: str | Path,
    *,
    videos: int = 12,
    seed: int = 0,
    width: int = 256,
    height: int = 192,
    on_progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Render clips 0 to `videos` - 1 of a seed. Existing files are replaced.

    The same seed and size give the same truth, byte for byte, and the same pixels.

    Raises:
        InputError: `videos` < 1, or a side that is odd or below 64 px.
        OSError: the folder cannot be written.
    """
    if videos < 1:
        raise InputError(f"videos must be at least 1, not {videos}")
    if width % 2 or height % 2 or min(width, height) < 64:
        raise InputError(f"{width}x{height}: sides must be even and at least 64 px")
    folder = Path(folder)
    done = []
    for index in range(videos):
        clip = make_clip(seed, index, width=width, height=height)
        done.append(render_clip(clip, folder, sidecar="json" if index % 2 else "txt"))
        if on_progress:
            on_progress(f"{index + 1}/{videos} {done[-1].name}")
    return done
