"""Renders clips to mp4 files with captions and exact truth beside them.

The folder and its truth have the form of `curation.demo.render`: what reads one reads the other::

    playground-0000.mp4         h264, yuv420p, constant frame rate, no sound
    playground-0000.txt         the caption; every other video has .json, {"caption": ...}, instead
    truth/playground-0000.json  what is where, frame by frame

`name` and `category` are both the name that captions use, "red star". Of a person, a frame also says `gaze`
(yaw, pitch, roll in degrees) and `face_xyxy`. `taxonomy.yaml` beside this file knows all the names; give it
to a run as `match.taxonomy`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

import av
import cv2

from curation.imaging import RGB, encode_mask
from curation.playground.clips import Clip, clip_at, draw_shot
from curation.playground.scenes import Seen

TAXONOMY: Final = Path(__file__).with_name("taxonomy.yaml")


def _frame_truth(seen: Seen) -> dict[str, Any]:
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


def _frames(clip: Clip, truth: dict[str, Any]) -> Iterator[RGB]:
    """All frames of the clip; fills `truth` on the way."""
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
                    entry["frames"][str(start + index)] = _frame_truth(each)
            yield image
        start += shot.frames
    truth["num_frames"] = start


def _write_video(path: Path, clip: Clip, frames: Iterator[RGB]) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        # One thread and no macroblock tree: the same bits on every machine.
        options = {"preset": "veryfast", "crf": "18", "threads": "1", "mbtree": "0", "g": str(clip.fps)}
        stream = cast(Any, container.add_stream("libx264", rate=clip.fps, options=options))
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        stream.time_base = Fraction(1, clip.fps)
        for index, rgb in enumerate(frames):
            planes = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
            frame = av.VideoFrame.from_ndarray(cast(RGB, planes), format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, clip.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def render_clip(clip: Clip, folder: Path, *, sidecar: str = "txt") -> Path:
    """Render one clip into `folder` (made if need be): video, sidecar ("txt" or "json"), truth."""
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    video = folder / f"{clip.name}.mp4"
    truth: dict[str, Any] = {
        "video": video.name,
        "caption": clip.caption,
        "fps": clip.fps,
        "width": clip.width,
        "height": clip.height,
        "num_frames": 0,
        "shots": [],
        "subjects": [],
    }
    _write_video(video, clip, _frames(clip, truth))
    caption = json.dumps({"caption": clip.caption}) if sidecar == "json" else clip.caption
    video.with_suffix(f".{sidecar}").write_text(caption + "\n", encoding="utf-8")
    text = json.dumps(truth, separators=(",", ":")) + "\n"
    (folder / "truth" / f"{clip.name}.json").write_text(text, encoding="utf-8")
    return video


def render(
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
        ValueError: `videos` < 1, or a side that is odd or below 64 px.
        OSError: the folder cannot be written.
    """
    if videos < 1:
        raise ValueError(f"videos must be at least 1, not {videos}")
    if width % 2 or height % 2 or min(width, height) < 64:
        raise ValueError(f"{width}x{height}: sides must be even and at least 64 px")
    folder = Path(folder)
    done = []
    for index in range(videos):
        clip = clip_at(seed, index, width=width, height=height)
        done.append(render_clip(clip, folder, sidecar="json" if index % 2 else "txt"))
        if on_progress:
            on_progress(f"{index + 1}/{videos} {done[-1].name}")
    return done
