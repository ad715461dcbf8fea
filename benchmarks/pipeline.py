"""The overhead of the runner: a whole classical run relative to the seconds of its stages.

    python -m benchmarks.pipeline [--clips 150]

It times the command `reprise curate` from start to end. The ideal is the sum of the seconds that the stages
measured, divided by the number of cores. The ratio to it contains all other costs: Python, the start and stop
of Ray, the transport of rows, idle cores, the report. Most of these costs do not depend on the number of
clips, so a run with few clips measures the start of Ray.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import count_cores, describe_machine
from curation.demo import render_demo

_CLIPS_PER_VIDEO = 2.65  # of the demo videos, on average
_PHASES = ("videos", "shards", "report")


def time_run(source: Path, output: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Curate in its own process; return the seconds at which each phase, and the process, ended.

    A phase prints lines of progress; the last one comes at its end.

    Raises:
        SystemExit: the run failed.
    """
    command = [sys.executable, "-m", "pipelines.curate", "--input", str(source), "--output", str(output)]
    ends: dict[str, float] = {}
    lines: list[str] = []
    since = time.perf_counter()
    with subprocess.Popen(
        [*command, f"engine.num_cpus={count_cores()}", *overrides],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr or ():
            lines.append(line)
            phase = line.partition(":")[0]
            if phase in _PHASES:
                ends[phase] = time.perf_counter() - since
    if process.returncode != 0:
        raise SystemExit(f"the run ended with status {process.returncode}:\n{''.join(lines)}")
    return {**ends, "all": time.perf_counter() - since}


def measure_pipeline(folder: Path, clips: int, short_side: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Render videos for about `clips` clips, curate them, and compare; times in seconds."""
    count = max(1, round(clips / _CLIPS_PER_VIDEO))
    render_demo(folder / "videos", videos=count, short_side=short_side)
    before = describe_machine()
    ends = time_run(folder / "videos", folder / "dataset", overrides)
    manifest = json.loads((folder / "dataset" / "manifest.json").read_text())
    stages: dict[str, float] = manifest["seconds"]
    ideal = sum(stages.values()) / count_cores()
    return {
        "benchmark": "pipeline",
        "videos": manifest["videos"]["in"],
        "clips": manifest["clips"]["in"],
        "short_side": short_side,
        "wall_s": round(ends["all"], 2),
        "until_s": {phase: round(ends[phase], 2) for phase in _PHASES},
        "stages_s": stages,
        "ideal_s": round(ideal, 2),
        "ratio": round(ends["all"] / ideal, 3),
        "machine": before,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--clips", type=int, default=150, help="approximately")
    parser.add_argument("--short-side", type=int, default=480, help="of the videos, px")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the config")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = measure_pipeline(Path(folder), options.clips, options.short_side, options.overrides)
    table = Table("", "seconds", box=None)
    for phase, seconds in result["until_s"].items():
        table.add_row(f"until the last of {phase}", f"{seconds:.1f}")
    table.add_row("whole run", f"{result['wall_s']:.1f}")
    table.add_row("ideal", f"{result['ideal_s']:.1f}")
    for name, seconds in result["stages_s"].items():
        table.add_row(f"  stage {name}", f"{seconds:.1f}")
    Console().print(table)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
