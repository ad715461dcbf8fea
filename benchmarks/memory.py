"""Measure whether memory stays flat: the peak of a whole run with 1, 4 and 16 times as many videos.

    python -m benchmarks.memory [--videos 2]

All processes of the run count, also Ray's. Shared memory counts once. It needs Linux.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import (
    describe_machine,
    list_process_family,
    measure_proportional_bytes,
    measure_resident_bytes,
)
from curation.demo import render_demo

GROWTH = (1, 4, 16)
_POLL_S = 0.3


def copy_videos(videos: Sequence[Path], folder: Path, times: int) -> None:
    """Copy videos with a different padding box at the end, so that no copy is a duplicate."""
    folder.mkdir()
    for number in range(times):
        for path in videos:
            padding = struct.pack(">I4sQ", 16, b"free", number)
            (folder / f"{path.stem}-{number:03d}.mp4").write_bytes(path.read_bytes() + padding)
            for sidecar in (path.with_suffix(".txt"), path.with_suffix(".json")):
                if sidecar.is_file():
                    shutil.copy(sidecar, folder / f"{path.stem}-{number:03d}{sidecar.suffix}")


def measure_peak(source: Path, output: Path) -> dict[str, float]:
    """Curate in its own process; return the peak (MB) of all its processes, and of a single worker."""
    command = [sys.executable, "-m", "pipelines.curate", "--input", str(source), "--output", str(output)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole = worker = driver = 0
    while process.poll() is None:
        members = list_process_family(process.pid)
        whole = max(whole, sum(measure_proportional_bytes(pid) for pid in members))
        driver = max(driver, measure_resident_bytes(process.pid))
        worker = max([worker, *(measure_resident_bytes(pid) for pid in members if _is_worker(pid))])
        time.sleep(_POLL_S)
    if process.returncode != 0:
        raise SystemExit(f"the run ended with status {process.returncode}")
    megabytes = {"whole": whole, "driver": driver, "worker": worker}
    return {name: round(value / 1e6, 1) for name, value in megabytes.items()}


def _is_worker(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"ray::Map", b"ray::_"))
    except OSError:
        return False


def measure_growth(folder: Path, count: int) -> dict[str, Any]:
    """Measure the peak of runs over growing numbers of videos."""
    before = describe_machine()
    videos = render_demo(folder / "videos", videos=count)
    peaks = []
    for times in GROWTH:
        copy_videos(videos, folder / f"x{times}", times)
        peaks.append(measure_peak(folder / f"x{times}", folder / f"dataset-{times}"))
    return {
        "benchmark": "memory",
        "videos": [count * times for times in GROWTH],
        **{f"{name}_mb": [each[name] for each in peaks] for name in peaks[0]},
        "ratio": round(peaks[-1]["whole"] / peaks[0]["whole"], 3),
        "worker_ratio": round(peaks[-1]["worker"] / peaks[0]["worker"], 3),
        "machine": before,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--videos", type=int, default=2, help="in the smallest run")
    options = parser.parse_args(arguments)
    if not Path("/proc/self/smaps_rollup").exists():
        print("this system does not report shared memory: run the benchmark on Linux", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        result = measure_growth(Path(folder), options.videos)
    table = Table("videos", "whole run, MB", "driver, MB", "largest worker, MB", box=None)
    for row in zip(*(result[key] for key in ("videos", "whole_mb", "driver_mb", "worker_mb")), strict=True):
        table.add_row(*map(str, row))
    Console().print(table)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
