"""What the engine costs: a whole embedded run against the seconds that its stages took.

    python -m benchmarks.pipeline [--clips 50]

The ideal is the sum of what stages measured of their own work, divided by the number of cores. The ratio to
it holds everything else: starting Ray and importing, moving rows, cores that wait, shards and the report.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import cores, machine
from curation.config import load_config
from curation.demo import render_demo
from curation.run import curate
from curation.sources import list_videos
from curation.storage import Storage

_CLIPS_PER_VIDEO = 2.9  # of the demo videos, on average


class Phases:
    """When each phase of a run began and ended, seconds."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self._task = ""

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self._task = task
        self.began[task] = time.perf_counter()

    def advance(self, by: int = 1, note: str | None = None) -> None: ...

    def end(self) -> None:
        self.ended[self._task] = time.perf_counter()


def measure(folder: Path, clips: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Render videos for about `clips` clips, curate them, and compare; times in seconds."""
    before = machine()
    render_demo(folder / "videos", videos=max(1, round(clips / _CLIPS_PER_VIDEO)))
    videos = list_videos(str(folder / "videos"))
    config = load_config(None, [f"engine.num_cpus={cores()}", *overrides])
    phases = Phases()
    since = time.perf_counter()
    done = curate(videos, Storage.at(folder / "dataset"), config, progress=phases)
    wall = time.perf_counter() - since
    starting = phases.began["videos"] - since
    stopping = phases.began["report"] - phases.ended["shards"]
    stages: dict[str, float] = done.manifest["seconds"]
    ideal = sum(stages.values()) / (config.engine.num_cpus or 1)
    return {
        "benchmark": "pipeline",
        "videos": len(videos),
        "clips": done.manifest["clips"]["in"],
        "wall_s": round(wall, 2),
        "ray_start_stop_s": round(starting + stopping, 2),
        "videos_s": round(phases.ended["videos"] - phases.began["videos"], 2),
        "shards_s": round(phases.ended["shards"] - phases.began["shards"], 2),
        "report_s": round(phases.ended["report"] - phases.began["report"], 2),
        "stages_s": stages,
        "ideal_s": round(ideal, 2),
        "ratio": round(wall / ideal, 3),
        "ratio_without_ray_start": round((wall - starting - stopping) / ideal, 3),
        "machine": before,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--clips", type=int, default=50, help="about so many")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the config")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.clips, options.overrides)
    table = Table("", "seconds", box=None)
    for name in ("wall_s", "ideal_s", "ray_start_stop_s", "videos_s", "shards_s", "report_s"):
        table.add_row(name.removesuffix("_s").replace("_", " "), f"{result[name]:.1f}")
    for name, seconds in result["stages_s"].items():
        table.add_row(f"  stage {name}", f"{seconds:.1f}")
    Console().print(table)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
