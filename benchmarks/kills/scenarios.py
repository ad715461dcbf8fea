"""The commands that are killed: how each is started, and how its result is checked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kills.inputs import write_videos
from benchmarks.kills.invariants import check_dataset, check_model, check_tensors, check_transaction

COMMANDS = ("curate", "refilter", "encode", "train")
_VIDEOS = 8
_CURATE = (
    "slice.detector=none",
    "slice.min_length=0.4",
    "slice.max_length=0.8",
    "slice.sample_fps=4",
    "ground.frames=1",
    "filter.sharpness_min=null",
    "shard.target_mb=1",
)
_REFILTER = ("filter.segment_min=0.9", "filter.label_min=0.4")


@dataclass(frozen=True)
class Scenario:
    """A command and the result of its undisturbed run.

    prepare: called with the output folder before its first run.
    check_killed: violations of what a kill left; check: violations of a finished result.
    seconds: how long the undisturbed run took.
    """

    name: str
    build_command: Callable[[str], list[str]]
    prepare: Callable[[Path], None]
    check_killed: Callable[[Path], list[str]]
    check: Callable[[Path], list[str]]
    seconds: float


def build_scenarios(folder: Path, names: tuple[str, ...]) -> list[Scenario]:
    """Make the inputs and run each command once, undisturbed."""
    videos = write_videos(folder / "videos", _VIDEOS)
    found = []
    dataset = folder / "undisturbed" / "curate"
    curate = _run_undisturbed(lambda output: _build_curate_command(videos, output), dataset)
    if "curate" in names:
        found.append(
            Scenario(
                "curate",
                lambda output: _build_curate_command(videos, output),
                lambda output: None,
                lambda output: [],
                lambda output: check_dataset(output, dataset, _VIDEOS),
                curate,
            )
        )
    if "refilter" in names:
        found.append(_build_refilter(folder, dataset))
    if "encode" in names or "train" in names:
        model = folder / "model"
        _run_command([sys.executable, "-m", "pipelines.playground", "model", "--output", str(model)])
        encode = _build_encode(folder, videos, model)
        found += [encode] if "encode" in names else []
        found += [_build_train(folder, model)] if "train" in names else []
    return found


def _build_refilter(folder: Path, dataset: Path) -> Scenario:
    after = folder / "undisturbed" / "refilter"
    shutil.copytree(dataset, after)
    seconds = _run_undisturbed(_build_refilter_command, after)

    def prepare(output: Path) -> None:
        shutil.copytree(dataset, output)

    return Scenario(
        "refilter",
        _build_refilter_command,
        prepare,
        lambda output: check_transaction(output, dataset, after),
        lambda output: check_dataset(output, after, _VIDEOS),
        seconds,
    )


def _build_encode(folder: Path, videos: Path, model: Path) -> Scenario:
    wanted = folder / "undisturbed" / "encode"

    def build_command(output: str) -> list[str]:
        return [
            *(sys.executable, "-m", "pipelines.encode", "--videos", str(videos), "--model", str(model)),
            *("--output", output, "--config", "training/playground/encode.yaml", "engine.part_rows=2"),
        ]

    seconds = _run_undisturbed(build_command, wanted)
    return Scenario(
        "encode",
        build_command,
        lambda output: None,
        lambda output: [],
        lambda output: check_tensors(output, wanted),
        seconds,
    )


def _build_train(folder: Path, model: Path) -> Scenario:
    latents, wanted = folder / "undisturbed" / "encode", folder / "undisturbed" / "train"

    def build_command(output: str) -> list[str]:
        return [
            *(sys.executable, "-m", "pipelines.train", "--recipe", "playground-t2v", f"model.path={model}"),
            *(f"tasks.0.latents={latents}", "tasks.0.batch=4", "tasks.0.micro_batch=4", "steps=40"),
            *("checkpoint.every=5", "optimizer.warmup=2", f"run.output={output}", "run.name=run"),
        ]

    seconds = _run_undisturbed(build_command, wanted)
    return Scenario(
        "train",
        build_command,
        lambda output: None,
        lambda output: [],
        lambda output: check_model(output / "run" / "model", wanted / "run" / "model"),
        seconds,
    )


def _build_curate_command(videos: Path, output: str) -> list[str]:
    options = ["--input", str(videos), "--output", output]
    return [sys.executable, "-m", "pipelines.curate", *options, *_CURATE]


def _build_refilter_command(output: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.refilter", "--dataset", output, *_REFILTER]


def _run_undisturbed(build_command: Callable[[str], list[str]], output: Path) -> float:
    since = time.perf_counter()
    _run_command(build_command(str(output)))
    return time.perf_counter() - since


def _run_command(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
