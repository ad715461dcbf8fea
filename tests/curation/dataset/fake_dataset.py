"""A small made-up dataset: real Parquet, pictures and H.264 clips, invented scores, counts known beforehand.

The n-th clip's fate repeats every `CYCLE`, so tests know how many clips a filter must leave.
"""

from __future__ import annotations

import functools
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.dataset.manifest import describe_thresholds
from curation.dataset.tally import Tally
from curation.imaging import codec
from curation.rows.schema import CLIPS, Scores
from curation.rows.tables import build_table
from curation.rows.thresholds import Thresholds, build_rules
from curation.rows.verdicts import decide_clip

KINDS = [  # category, group, name, phrase, RGB
    ("dog", "animal", "puppy", "a brown puppy", (150, 96, 52)),
    ("woman", "human", "woman", "a woman in a red coat", (176, 42, 48)),
    ("car", "vehicle", "taxi", "yellow taxi", (232, 184, 40)),
    ("cup", "object", "mug", "blue mug", (52, 92, 168)),
    ("cat", "animal", "kitten", "a grey kitten", (128, 128, 136)),
    ("boat", "vehicle", "sailboat", "white sailboat", (236, 234, 226)),
    ("man", "human", "man", "an old man", (72, 88, 96)),
    ("flower", "plant", "tulip", "pink tulip", (226, 116, 160)),
]
# What becomes of rows 0, 1, 2, ...: "failed" is a video that could not be read, the others are clips.
CYCLE = ["kept", "kept", "dark", "kept", "small", "kept", "failed", "kept", "uncaptioned", "kept"]
NASTY = """say "hi" & <script>document.title='owned'</script> <img src=x onerror="document.title='owned'">"""
CHINESE = "一只棕色的小狗在公园里奔跑"
RULES = build_rules(Thresholds())


@dataclass
class Fake:
    """Its folder and its contents."""

    root: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)

    def count(self, status: str) -> int:
        return sum(row["status"] == status for row in self.rows)

    def with_category(self, category: str, reason: str | None = None) -> int:
        return sum(
            any(
                s["category"] == category
                and (reason is None or reason in (s["verdict"]["reason"], (row["stop"] or {}).get("reason")))
                for s in row["subjects"]
            )
            for row in self.rows
        )

    def with_reason(self, reason: str) -> int:
        return sum(
            reason == (row["stop"] or {}).get("reason")
            or any(reason == s["verdict"]["reason"] for s in row["subjects"])
            for row in self.rows
        )


def write_dataset(
    root: Path,
    clips: int = 20,
    *,
    size: tuple[int, int] = (480, 270),
    rows_per_shard: int = 16,
    videos: int = 4,
    seconds: float | None = None,
) -> Fake:
    """Make the dataset; `size` is (width, height) px of frames, `videos` how many MP4s to encode.

    With `seconds`, the clips are of that length and size; else their rows do not fit their files.
    """
    fake = Fake(root)
    made = (seconds, size) if seconds else (2.0, (320, 180))
    encoded = [_mp4(seed, *made) for seed in range(max(1, min(videos, clips)))]
    (root / "data").mkdir(parents=True)
    shards, tally = [], Tally()
    for start in range(0, clips, rows_per_shard):
        rows = [_row(n, size, seconds) for n in range(start, min(start + rows_per_shard, clips))]
        for row in rows:
            tally.add_row(row)  # type: ignore[arg-type]
            if row["clip_path"]:
                path = root / row["clip_path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded[len(fake.rows) % len(encoded)])
        rel = f"data/clips-{start // rows_per_shard:05d}.parquet"
        table = build_table(rows, CLIPS)
        pq.write_table(table, root / rel, row_group_size=8, compression="zstd")
        shards.append({"path": rel, "rows": table.num_rows, "bytes": (root / rel).stat().st_size})
        fake.rows += [without_pictures(row) for row in rows]
    fake.manifest = _manifest(tally, shards)
    (root / "manifest.json").write_text(json.dumps(fake.manifest), encoding="utf-8")
    return fake


def without_pictures(row: dict[str, Any]) -> dict[str, Any]:
    references = [[{**r, "image": None} for r in s["references"]] for s in row["subjects"]]
    subjects = [
        {**s, "mask": None, "references": r} for s, r in zip(row["subjects"], references, strict=True)
    ]
    return {**row, "frames": [], "subjects": subjects}


def _row(n: int, size: tuple[int, int], seconds: float | None) -> dict[str, Any]:
    fate = CYCLE[n % len(CYCLE)]
    random = np.random.default_rng(n)
    video, length = f"{n // 2:020x}", 2.0 + 6 * float(random.random())
    length = seconds or length
    row: dict[str, Any] = dict.fromkeys(CLIPS.names)
    row.update(
        clip_id=f"{video}-{n % 2}",
        video_id=video,
        source_path=f"videos/street #{n // 2} 100% 街.mp4" if n % 7 == 3 else f"videos/walk_{n // 2:04d}.mp4",
        source_key=f"k{n}",
        license=("CC-BY-4.0", "CC0-1.0", None)[n % 3],
        clip_index=n % 2,
        clip_count=2,
        status="open",
        frames=[],
        subjects=[],
        config_hash="c0ffee123456",
        payload_bytes=1234,
    )
    if fate == "failed":
        row.update(video_id=None, clip_id=f"unread-{n:016x}", status="failed")
        row.update(source_path=f"videos/broken_{n}.mp4")
        row["stop"] = {"stage": "slice", "reason": "moov atom not found", "value": None, "threshold": None}
        return row
    first = 100 * (n % 2)
    width, height = size
    row.update(
        clip_path=f"clips/{video[-2:]}/clip #{n} 猫.mp4" if n % 7 == 3 else f"clips/{video[-2:]}/{n:06d}.mp4",
        start_frame=first,
        end_frame=first + round(length * 25),
        start_s=first / 25,
        end_s=first / 25 + length,
        num_frames=round(length * 25),
        fps=25.0,
        width=width,
        height=height,
        cut="copy",
        source_codec="h264",
        motion=float(random.gamma(2, 0.04)),
        camera_motion=float(random.gamma(2, 0.02)),
        motion_scale=8.0,
    )
    kinds = [KINDS[n % len(KINDS)], KINDS[(3 * n + 1) % len(KINDS)]]
    if kinds[0] == kinds[1]:
        kinds.pop()
    if fate == "uncaptioned":
        row["status"] = "rejected"
        row["stop"] = {"stage": "caption", "reason": "no caption", "value": None, "threshold": None}
        kinds = []
    else:
        extra = NASTY if n == 1 else CHINESE if n == 3 else "early morning light, a slow pan to the left"
        row["caption"] = f"{' and '.join(kind[3] for kind in kinds).capitalize()} in a quiet street; {extra}."
        row["caption_source"] = "sidecar"
    scene, masks = _scene(tuple(kinds), n % 12, size)
    picture = codec.encode_image(scene)
    for index in (first, first + 25, first + 50):
        row["frames"].append({"index": index, "time_s": index / 25, "image": picture, "motion": None})
    for ordinal, (kind, mask) in enumerate(zip(kinds, masks, strict=True)):
        row["subjects"].append(_subject(row, ordinal, kind, mask, scene, fate, random, first + 25))
    if row["subjects"] and n % 5 == 0:
        row["subjects"].append(_not_found(row))
    if row["stop"] is None:
        decide_clip(row, RULES)  # type: ignore[arg-type]
    for subject, mask in zip(row["subjects"], masks, strict=False):
        if subject["verdict"]["kept"]:
            subject["references"] = _references(subject, scene, mask, n)
    return row


def _subject(
    row: dict[str, Any], ordinal: int, kind: Any, mask: Any, scene: Any, fate: str, random: Any, frame: int
) -> dict[str, Any]:
    category, group, name, phrase, _ = kind
    scores: dict[str, float | None] = dict.fromkeys(Scores.__annotations__)
    scores.update(
        grounding=float(np.clip(random.normal(0.62, 0.14), 0.26, 0.99)),
        label=float(np.clip(random.normal(0.84, 0.1), 0.61, 1)),
        segment=float(np.clip(random.normal(0.85, 0.1), 0.31, 1)),
        area_share=0.012 if fate == "small" else float(np.clip(mask.mean(), 0.04, 0.7)),
        border_share=float(np.clip(random.exponential(0.05), 0, 0.4)),
        overlap_iou=float(np.clip(random.exponential(0.06), 0, 0.6)),
        overlap_containment=float(np.clip(random.exponential(0.1), 0, 0.8)),
        brightness=22.5 if fate == "dark" else float(np.clip(random.normal(120, 32), 45, 230)),
        clipped_share=float(np.clip(random.exponential(0.03), 0, 0.4)),
        # The second subject of every other kept clip is blurred: a kept clip with a rejected subject.
        sharpness=18.0
        if ordinal and int(row["start_frame"]) == 0
        else float(max(42, math.exp(random.normal(5.6, 0.8)))),
    )
    if group == "human":
        scores.update(face_count=1.0, face_share=0.06, face_score=0.93)
        scores.update(face_frontality=float(random.uniform(0.52, 1)))
    return {
        "subject_id": f"{row['clip_id']}-s{ordinal}",
        "category": category,
        "group": group,
        "name": name,
        "phrase": phrase,
        "instance": 0,
        "frame_index": frame,
        "box": codec.get_mask_box(mask),
        "mask": codec.encode_mask(mask),
        "scores": scores,
        "verdict": None,
        "made_by": json.dumps({"detector": "proposals@1", "segmenter": "grabcut@1"}),
        "references": [],
    }


def _not_found(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "subject_id": f"{row['clip_id']}-s9",
        "category": "street",
        "group": "place",
        "name": "street",
        "phrase": "quiet street",
        "instance": 0,
        "frame_index": None,
        "box": None,
        "mask": None,
        "scores": dict.fromkeys(Scores.__annotations__),
        "verdict": None,
        "made_by": None,
        "references": [],
    }


def _references(subject: dict[str, Any], scene: Any, mask: Any, n: int) -> list[dict[str, Any]]:
    height, width = mask.shape
    x0, y0, x1, y1 = codec.pad_box(subject["box"], 0.1, width, height)
    cut = np.dstack([scene, (mask * 255).astype(np.uint8)])[y0:y1, x0:x1]
    plain = np.full_like(scene, (226, 222, 214))
    plain[mask] = scene[mask]
    turned = np.ascontiguousarray(cut[:, ::-1, :3])
    other, _ = _scene((), (n + 5) % 12, (width, height))
    other = other.copy()
    other[mask] = scene[mask]
    made = [
        ("crop", scene[y0:y1, x0:x1], "crop", None),
        ("segment", np.ascontiguousarray(cut), "grabcut", None),
        ("inpaint", plain, "telea", None),
        ("redux", turned, "geometric", 0.91),
    ]
    if n % 2:
        made.append(("crosspair", other, "composite", 0.96))
    return [
        {
            "reference_id": f"{subject['subject_id']}-{variant}0",
            "variant": variant,
            "image": codec.encode_image(np.ascontiguousarray(picture)),
            "width": picture.shape[1],
            "height": picture.shape[0],
            "model": model,
            "revision": "1",
            "prompt": "the same subject, another pose" if variant == "redux" else None,
            "seed": None if variant in ("crop", "segment") else 1234 + n,
            "donor_clip_id": f"{n + 5:020x}-0" if variant == "crosspair" else None,
            "identity": identity,
            "donor_frame_index": None,
            "face_identity": None,
            "kept": True,
            "reason": None,
        }
        for variant, picture, model, identity in made
    ]


@functools.lru_cache(maxsize=256)
def _scene(kinds: tuple[Any, ...], light: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], list[Any]]:
    """A street-like backdrop with one blob per subject, and the blobs' masks."""
    width, height = size
    random = np.random.default_rng(light)
    sky, ground = random.integers(120, 230, 3), random.integers(60, 140, 3)
    ramp = np.linspace(0, 1, height)[:, None, None]
    image = (sky * (1 - ramp) + ground * ramp) * np.ones((height, width, 1))
    for _ in range(9):
        left, wide = int(random.integers(0, width)), int(random.integers(width // 12, width // 5))
        tall, foot = 0.6 * int(random.integers(height // 4, height)), int(height * 0.66)
        shade = (sky * 0.5 + random.integers(0, 90, 3)).tolist()
        cv2.rectangle(image, (left, int(foot - tall)), (left + wide, foot), shade, -1)
    image += random.normal(0, 5, image.shape)
    masks = []
    for ordinal, kind in enumerate(kinds):
        mask = np.zeros((height, width), np.uint8)
        x, y = int(width * (0.3 + 0.4 * ordinal)), int(height * 0.62)
        radius = height // 6
        cv2.ellipse(mask, (x, y), (int(radius * 1.1), radius), 0, 0, 360, 1, -1)
        cv2.circle(mask, (x + radius // 2, y - radius), radius // 2, 1, -1)
        inside = mask.astype(bool)
        shading = np.linspace(1.2, 0.7, height)[:, None, None] * np.array(kind[4], float)
        image[inside] = (shading * np.ones((1, width, 1)))[inside]
        image[inside] += random.normal(0, 9, (int(inside.sum()), 3))
        cv2.circle(image, (x + radius // 2 + 6, y - radius - 3), max(2, radius // 12), (20, 20, 20), -1)
        masks.append(inside)
    return np.clip(image, 0, 255).astype(np.uint8), masks


def _mp4(seed: int, seconds: float, size: tuple[int, int]) -> bytes:
    """A moving blob, H.264 in MP4, 25 frames a second."""
    width, height = size
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(int(seconds * 25)):
            frame = np.full((height, width, 3), (60 + 30 * seed % 120, 90, 110), np.uint8)
            cv2.circle(
                frame, (40 + 5 * n, 90 + round(30 * math.sin(n / 6))), 30, (240, 200, 90), -1, cv2.LINE_AA
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return memory.getvalue()


def _manifest(tally: Tally, shards: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "reprise_version": "0.1.0",
        "created_at": "2025-11-21T09:30:00+00:00",
        "finished": True,
        "config": {"profile": "classical", "seed": 0, "slice": {"detector": "content", "min_length": 2.0}},
        "config_hash": "c0ffee123456",
        "versions": {"python": "3.11.2", "pyarrow": pa.__version__, "opencv": cv2.__version__},
        **tally.summarize_counts(),
        "thresholds": describe_thresholds(Thresholds()),
        "seconds": {
            "slice": 14.2,
            "caption": 0.4,
            "ground": 61.5,
            "segment": 132.8,
            "filter": 22.1,
            "inpaint": 9.7,
        },
        "shards": shards,
    }
