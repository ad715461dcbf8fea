"""Curation runs as processes of their own, to be watched, killed and compared."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.faults import CAPTION, encode

REPOSITORY = Path(__file__).resolve().parents[2]
# Unlike each other, or there would be no cross-pairs.
CAPTIONS = (CAPTION, "The ball, striped and bright, spins quickly past.")
# Many short clips: a run takes a few seconds and can be killed at many points.
LIGHT = (
    "slice.detector=none",
    "slice.min_length=0.4",
    "slice.max_length=0.8",
    "slice.sample_fps=4",
    "ground.frames=1",
    "filter.sharpness_min=null",
    "shard.target_mb=1",
)


def make_videos(folder: Path, count: int, *, first: int = 0) -> Path:
    """Captioned videos of 3.2 s, 160x120, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        path = folder / f"ball-{number:02d}.mp4"
        encode(path, number, size=(160, 120), options={"preset": "ultrafast", "crf": "26"})
        path.with_suffix(".txt").write_text(CAPTIONS[number % 2])
    return folder


def command(source: str | Path, output: str | Path, *more: str) -> list[str]:
    options = ["--input", str(source), "--output", str(output)]
    return [sys.executable, "-m", "pipelines.curate", *options, *LIGHT, *more]


def curate(
    source: str | Path, output: str | Path, *more: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        command(source, output, *more),
        cwd=REPOSITORY,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


class Run:
    """A run in the background, in a process group of its own."""

    def __init__(self, source: str | Path, output: str | Path, *more: str, log: Path) -> None:
        self.output, self.log = Path(output), log
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                command(source, output, *more),
                cwd=REPOSITORY,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Tests that run in the background of a shell ignore Ctrl-C, and so would this.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self._seen: set[int] = set()

    def wait(self, until: Callable[[], bool], seconds: float = 300) -> bool:
        """Whether `until` came true before the run ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if until():
                return True
            if self.process.poll() is not None:
                return until()
            time.sleep(0.005)
        raise TimeoutError(f"not within {seconds} s:\n{self.log.read_text()[-3000:]}")

    def fragments(self) -> int:
        return len(list(self.output.glob("work/*/rows/*.parquet")))

    def workers(self) -> list[int]:
        """Processes in which tasks of this run are being worked on."""
        names = (b"ray::Map", b"ray::finish_job_shard", b"ray::make_plate_group")
        return sorted(pid for pid in self.family() if _cmdline(pid).startswith(names))

    def family(self) -> set[int]:
        """Everything that the run has started and that still runs."""
        children: dict[int, list[int]] = {}
        for pid in _processes():
            children.setdefault(_parent(pid), []).append(pid)
        found: set[int] = set()
        left = [self.process.pid]
        while left:
            pid = left.pop()
            found.add(pid)
            left += children.get(pid, [])
        self._seen |= found
        return found

    def signal(self, number: int) -> None:
        """What a terminal does on Ctrl-C: the whole process group gets the signal."""
        self.family()
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Send SIGKILL only to the driver, as the kernel does when memory is exhausted."""
        self.family()
        self.process.kill()
        self.process.wait()
        self.clean_up()

    def clean_up(self, grace: float = 5) -> list[int]:
        """Wait for orphans to end by themselves; end the rest, and return it."""
        deadline = time.monotonic() + grace
        while True:
            left = [pid for pid in self._seen - {self.process.pid} if _is_ours(pid)]
            # Ray's agents end late, which has no effect on the test.
            if all(b"Agent" in _cmdline(pid) for pid in left) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left


def _processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_ours(pid: int) -> bool:
    """Still there, no zombie, and not another process that got the number meanwhile."""
    return b"ray" in _cmdline(pid)


def rows(dataset: Path) -> list[dict[str, Any]]:
    """Every row of a dataset with all its columns, pictures included, by clip."""
    found: list[dict[str, Any]] = []
    for shard in sorted(dataset.glob("data/*.parquet")):
        found += pq.read_table(shard).to_pylist()
    return sorted(found, key=lambda row: row["clip_id"])


def files(dataset: Path, folder: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(dataset)): path.read_bytes()
        for path in sorted((dataset / folder).rglob("*"))
        if path.is_file()
    }


def leftovers(dataset: Path) -> list[str]:
    """List files that a finished dataset must not have."""
    found = [str(path) for path in dataset.rglob(".*")]
    return found + ([str(dataset / "work")] if (dataset / "work").exists() else [])
