"""The speed of slicing, relative to finding shots: ``python -m benchmarks.slicing [FILES...] [--runs 5]``.

One side is the simplest script: PySceneDetect's content detector over PyAV, which decodes every frame and
stores nothing. The other side is Reprise's slicing: the same frames and detector, and also the clips, the
sampled frames as JPEG and their motion. Both decode the same files with the same number of threads, in turns
A B A B, so that other work on the machine affects both.

``ratio`` is speed over speed (frames per second of wall time, medians per file, all files together): 1 means
that cutting, sampling and motion cost nothing. ``cpu_ratio`` is the same in processor time, which other
programs disturb less and which a cluster pays for. Shares of the cost come from one more run with a clock in
every part. Without FILES, the demo videos are rendered first. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
from rich.console import Console
from rich.table import Table
from scenedetect import ContentDetector, SceneManager, open_video

from benchmarks.machine import describe_machine
from curation.config import SliceConfig
from curation.demo import render_demo
from curation.video import cut, frames, sampling, shots
from curation.video.slicer import Slicer

PARTS = ("decode", "shots", "motion", "samples", "cut")


@dataclass
class SideTimes:
    """Seconds of every run of one side over one file."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time_call(self, work: Callable[[Path], object], path: Path) -> None:
        """Time one run."""
        wall, cpu = time.perf_counter(), time.process_time()
        work(path)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def find_shots(path: Path) -> None:
    """Decode and detect shots, nothing else."""
    video = open_video(str(path), backend="pyav", threading_mode="AUTO")
    manager = SceneManager()
    manager.add_detector(ContentDetector())
    manager.detect_scenes(video)


def slice_all(path: Path) -> None:
    """Slice a local file as the slice stage does, without storing the clips in a dataset."""
    with tempfile.TemporaryDirectory() as folder:
        for span in Slicer(path, SliceConfig(), Path(folder)).slice_video():
            if span.file:
                span.file.unlink()


@contextmanager
def patch_clocks(spent: dict[str, float]) -> Iterator[None]:
    """Put a clock into every part of slicing. The time of an inner part is subtracted from the outer one."""
    local = threading.local()

    def wrap_clock(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)
        def call_timed(*args: Any, **kwargs: Any) -> Any:
            inside: list[float] = local.__dict__.setdefault("inside", [])
            inside.append(0.0)
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - started
                spent[part] += took - inside.pop()
                if inside:
                    inside[-1] += took

        return call_timed

    places: list[tuple[Any, str, str]] = [
        (frames.FrameScaler, "make_small", "shots"),
        (shots.ShotDetector, "push_frame", "shots"),
        (sampling, "measure_motion", "motion"),
        (sampling.FrameSampler, "add_frame", "samples"),
        (frames.FrameScaler, "make_clip_frame", "cut"),
        *(
            (each, name, "cut")
            for each in (cut.ClipCopier, cut.ClipEncoder)
            for name in ("add_frame", "close_file", "remove_file")
        ),
        (cut.ClipEncoder, "__init__", "cut"),
        (cut.PacketLog, "add_packets", "cut"),
        (cut.PacketLog, "forget_before", "cut"),
        (cut.PacketLog, "select_packets", "cut"),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in places]
    for where, name, part in places:
        setattr(where, name, wrap_clock(getattr(where, name), part))
    try:
        yield
    finally:
        for where, name, function in before:
            setattr(where, name, function)


def measure_shares(paths: Sequence[Path]) -> dict[str, float]:
    """Return part -> share of the processor time; time outside all clocks counts as decoding."""
    spent: dict[str, float] = defaultdict(float)
    started = time.process_time()
    with patch_clocks(spent):
        for path in paths:
            slice_all(path)
    whole = time.process_time() - started
    spent["decode"] = whole - sum(spent.values())
    return {part: round(spent[part] / whole, 3) for part in PARTS}


def count_frames(path: Path) -> int:
    """Count the frames of a video."""
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def compare_sides(paths: Sequence[Path], runs: int, console: Console) -> dict[str, Any]:
    """Run both sides in turns and print the table."""
    ran_on = describe_machine()
    cv2.setNumThreads(1)  # as in a worker; more threads do not help with small pictures
    slice_all(paths[0])  # imports and caches
    bare = {path: SideTimes() for path in paths}
    ours = {path: SideTimes() for path in paths}
    for _ in range(runs):
        for path in paths:
            bare[path].time_call(find_shots, path)
            ours[path].time_call(slice_all, path)
    table = Table("file", "frames", "only shots, fps", "sliced, fps", "ratio", "CPU ratio", box=None)
    total = {"bare": 0.0, "ours": 0.0, "bare_cpu": 0.0, "ours_cpu": 0.0}
    files: dict[str, dict[str, float]] = {}
    for path in paths:
        number = count_frames(path)
        a, b, a_cpu, b_cpu = (
            median(times) for times in (bare[path].wall, ours[path].wall, bare[path].cpu, ours[path].cpu)
        )
        for key, value in zip(total, (a, b, a_cpu, b_cpu), strict=True):
            total[key] += value
        files[path.name] = {"ratio": round(a / b, 3), "cpu_ratio": round(a_cpu / b_cpu, 3)}
        row = (f"{number}", f"{number / a:.0f}", f"{number / b:.0f}", f"{a / b:.2f}", f"{a_cpu / b_cpu:.2f}")
        table.add_row(path.name, *row)
    console.print(table)
    return {
        "ratio": round(total["bare"] / total["ours"], 3),
        "cpu_ratio": round(total["bare_cpu"] / total["ours_cpu"], 3),
        "runs": runs,
        "files": files,
        "shares": measure_shares(paths),
        "machine": ran_on,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slicing", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("files", nargs="*", type=Path, help="videos; without any, the demo videos")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    logging.getLogger("pyscenedetect").setLevel(logging.ERROR)
    av.logging.set_libav_level(av.logging.FATAL)  # PySceneDetect lets FFmpeg write to the terminal
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        paths: list[Path] = options.files or render_demo(Path(folder))
        absent = [path for path in paths if not path.is_file()]
        if absent or options.runs < 1:
            console.print(f"no such file: {absent[0]}" if absent else "--runs must be at least 1")
            return 2
        result = compare_sides([path for path in paths if path.suffix != ".txt"], options.runs, console)
    console.print("  ".join(f"{part} {share:.0%}" for part, share in result["shares"].items()))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
