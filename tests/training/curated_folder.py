"""A small curated dataset with the columns that training reads (docs/dataset.md)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

VARIANTS = ("crop", "segment", "inpaint", "redux", "crosspair")


def write_curated(
    root: Path, clips: int = 6, *, rows_per_shard: int = 4, subjects: int = 2, **changes: dict[str, Any]
) -> Path:
    """Clip n is kept, 96x64 px, 24 frames per second, 2 s; `c<n>={"status": ...}` replaces columns of it."""
    (root / "data").mkdir(parents=True)
    (root / "clips").mkdir()
    rows = []
    for n in range(clips):
        row = row_of(n, subjects) | changes.get(f"c{n}", {})
        rows.append(row)
        if row["clip_path"] and "video" not in row:
            (root / row["clip_path"]).write_bytes(moving_square(n))
        if row.pop("video", None) is not None:
            (root / "clips" / f"{n}.mp4").write_bytes(changes[f"c{n}"]["video"])
    for start in range(0, clips, rows_per_shard):
        table = pa.Table.from_pylist(rows[start : start + rows_per_shard], schema=_SCHEMA)
        pq.write_table(table, root / "data" / f"clips-{start:05d}.parquet", row_group_size=3)
    (root / "manifest.json").write_text(json.dumps({"config_hash": "c0ffee"}))
    return root


def row_of(n: int, subjects: int = 2) -> dict[str, Any]:
    return {
        "clip_id": f"clip{n}",
        "video_id": f"video{n // 2}",
        "clip_path": f"clips/{n}.mp4",
        "caption": f"a {'red' if n % 2 else 'blue'} dog runs",
        "status": "kept",
        "stop": None,
        "config_hash": "c0ffee",
        "subjects": [subject_of(n, s) for s in range(subjects)],
    }


def subject_of(n: int, s: int, variants: tuple[str, ...] = VARIANTS) -> dict[str, Any]:
    return {
        "subject_id": f"clip{n}-s{s}",
        "category": "dog",
        "verdict": {"kept": True},
        "references": [
            {
                "reference_id": f"clip{n}-s{s}-{variant}0",
                "variant": variant,
                "image": {"bytes": picture(10 * n + s, variant), "path": None},
                "revision": "1",
                "seed": 7,
                "donor_clip_id": None,
                "kept": True,
            }
            for variant in variants
        ],
    }


def picture(seed: int, variant: str = "crop") -> bytes:
    """JPEG 40x50; WebP with a transparent left half for segment and redux."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    memory = io.BytesIO()
    if variant in ("segment", "redux"):
        alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        alpha[:, :20] = 0
        Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(
            memory, "WEBP", lossless=True, exact=True
        )
    else:
        Image.fromarray(pixels).save(memory, "JPEG")
    return memory.getvalue()


def moving_square(seed: int, frames: int = 48, size: tuple[int, int] = (96, 64), fps: int = 24) -> bytes:
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for n in range(frames):
            frame = np.full((size[1], size[0], 3), (60 + 20 * seed) % 256, np.uint8)
            frame[10:30, n : n + 20] = (240, 200, 90)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return memory.getvalue()


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("clip_id", "video_id", "clip_path", "caption", "status")),
        ("stop", pa.struct([("stage", pa.string()), ("reason", pa.string())])),
        ("config_hash", pa.string()),
        (
            "subjects",
            pa.list_(
                pa.struct(
                    [
                        ("subject_id", pa.string()),
                        ("category", pa.string()),
                        ("verdict", pa.struct([("kept", pa.bool_())])),
                        (
                            "references",
                            pa.list_(
                                pa.struct(
                                    [
                                        ("reference_id", pa.string()),
                                        ("variant", pa.string()),
                                        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                                        ("revision", pa.string()),
                                        ("seed", pa.int64()),
                                        ("donor_clip_id", pa.string()),
                                        ("kept", pa.bool_()),
                                    ]
                                )
                            ),
                        ),
                    ]
                )
            ),
        ),
    ]
)
