"""The speed of export, relative to plain copying and to FFmpeg: ``python -m benchmarks.export [--clips 64]``.

*Copying*: `webdataset`, which copies every clip into tar files, against `cp -r` of the same clips.
*Encoding*: `h3-musubi`, which encodes every clip again at 24 frames per second, against `ffmpeg` with the
same filter, x264 preset and number of threads. Both sides run in turns in one process, so that other work on
the machine affects both. A ratio is speed over speed, the median of the pairs: 1 means that export costs
nothing besides. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from av.video.frame import VideoFrame

from benchmarks.machine import describe_machine
from curation.export.build import build_target
from curation.export.config import ExportConfig
from curation.export.export import export_dataset
from curation.export.plan import ExportUnit
from curation.export.write import ExportJob, UnitResult, write_unit
from curation.imaging.codec import encode_image
from curation.rows.schema import CLIPS
from curation.rows.tables import build_table
from curation.video.cut import ClipEncoder
from reprise.settings import with_overrides
from reprise.storage import Storage

_SIZE = (1280, 704)  # px of the clips
_FRAMES = 150  # 6 s at 25 frames per second
_FPS = 24


def write_dataset(root: Path, clips: int) -> list[Path]:
    """Write a dataset of moving textures, each with one subject and one reference; return its clips."""
    rows, paths = [], []
    texture = np.random.default_rng(0).integers(0, 255, (_SIZE[1] // 8, _SIZE[0] // 4, 3), np.uint8)
    texture = cv2.resize(texture, (2 * _SIZE[0], _SIZE[1]), interpolation=cv2.INTER_CUBIC)
    for number in range(clips):
        clip_id = f"{number:020x}-0"
        path = root / "clips" / f"{clip_id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        encoder = ClipEncoder(path, *_SIZE, Fraction(25), 20, "ultrafast")
        for at in range(_FRAMES):
            left = (4 * at + 10 * number) % _SIZE[0]
            picture = np.ascontiguousarray(texture[:, left : left + _SIZE[0]], np.uint8)
            frame = VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            encoder.add_frame(frame, None, at / 25, 1 / 25)
        encoder.close_file()
        rows.append(_build_row(clip_id, f"clips/{path.name}"))
        paths.append(path)
    shard = "data/clips-00000-of-00001.parquet"
    (root / "data").mkdir()
    pq.write_table(build_table(rows, CLIPS), root / shard, row_group_size=16)
    manifest = {"finished": True, "config_hash": "benchmark", "shards": [{"path": shard, "rows": clips}]}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return paths


def _build_row(clip_id: str, path: str) -> dict[str, Any]:
    reference = {
        "reference_id": f"{clip_id}-crop0", "variant": "crop", "kept": True,
        "image": encode_image(np.full((256, 256, 3), 120, np.uint8)), "width": 256, "height": 256,
    }  # fmt: skip
    return {
        "clip_id": clip_id, "video_id": clip_id[:20], "source_path": "made", "source_key": clip_id,
        "clip_path": path, "start_frame": 0, "end_frame": _FRAMES, "num_frames": _FRAMES, "fps": 25.0,
        "width": _SIZE[0], "height": _SIZE[1], "caption": "A texture moves.", "status": "kept", "frames": [],
        "config_hash": "benchmark",
        "subjects": [
            {
                "subject_id": f"{clip_id}-s0", "category": "texture", "phrase": "texture",
                "frame_index": 0, "verdict": {"kept": True}, "references": [reference],
            }
        ],
    }  # fmt: skip


def execute(job: ExportJob, units: Sequence[ExportUnit]) -> Iterator[tuple[ExportUnit, UnitResult]]:
    """Run units in this process."""
    for unit in units:
        yield unit, write_unit(job, unit)


def export(dataset: Path, output: Path, target: str, *overrides: str) -> None:
    """Export a dataset into an empty folder."""
    config = with_overrides(ExportConfig(), ["video.link=false", *overrides])
    export_dataset(
        ExportJob(Storage.from_uri(dataset), Storage.from_uri(output), build_target(target), config), execute
    )


def transcode_with_ffmpeg(clips: Sequence[Path], output: Path, preset: str) -> None:
    """Encode clips with the `ffmpeg` program as the export does."""
    output.mkdir()
    for clip in clips:
        rate = ["-vf", f"fps={_FPS}", "-frames:v", "141"]
        codec = ["-c:v", "libx264", "-preset", preset, "-crf", "18", "-bf", "0", "-threads", "1"]
        codec += ["-g", str(_FPS // 2)]
        target = ["-movflags", "+faststart", str(output / clip.name)]
        command = ["ffmpeg", "-loglevel", "error", "-threads", "1", "-i", str(clip), *rate, *codec, *target]
        subprocess.run(command, check=True)


def measure_ratio(ours: Callable[[Path], None], theirs: Callable[[Path], None], runs: int) -> float:
    """Run both sides in turns, each into a new folder; return the median of their seconds over ours."""
    ratios = []
    for _ in range(runs):
        seconds = []
        for work in (ours, theirs):
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                work(Path(folder) / "out")
                seconds.append(time.perf_counter() - started)
        ratios.append(seconds[1] / seconds[0])
    return median(ratios)


def main(arguments: list[str]) -> int:
    """Measure both ratios and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clips", type=int, default=64, help="clips of the dataset")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs")
    parser.add_argument("--preset", default="veryfast", help="of x264")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        clips = write_dataset(root, options.clips)

        def copy_clips(output: Path) -> None:
            output.mkdir()
            subprocess.run(["cp", "-r", *map(str, clips), str(output)], check=True)

        copying = measure_ratio(
            lambda output: export(root, output, "webdataset", "engine.unit_clips=16"),
            copy_clips,
            options.runs,
        )
        encoding = None
        if shutil.which("ffmpeg"):
            encoding = measure_ratio(
                lambda output: export(root, output, "h3-musubi", f"video.preset={options.preset}"),
                lambda output: transcode_with_ffmpeg(clips, output, options.preset),
                max(1, options.runs // 2),
            )
    print(f"copying   {copying:.2f} of cp -r, {len(clips)} clips")
    print(f"encoding  {encoding:.2f} of ffmpeg" if encoding else "encoding  not measured: no ffmpeg")
    print(json.dumps({"copying": copying, "encoding": encoding, "machine": describe_machine()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
