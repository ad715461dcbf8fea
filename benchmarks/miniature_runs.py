"""Shared code of the miniatures: commands that run once, trainings in own processes, a picture, a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from training.config import TrainConfig

JUDGED_SEED = 900_001  # seed of the judged scenes; training videos have seed 0
ENCODE_CONFIG = "training/playground/encode.yaml"
UNLIKE_OFFSET = 13  # in the list of identities: that one differs in colour, shape and texture


def run_commands(folder: Path, steps: Mapping[str, Sequence[str]]) -> None:
    """Run commands of `reprise`. Each writes the folder of its name. Finished commands are not run again."""
    for name, (command_name, *arguments) in steps.items():
        done = folder / f".{name}.done"
        if done.exists():
            continue
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            f"pipelines.{command_name}",
            *arguments,
            "--output",
            str(folder / name),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        done.touch()
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def run_in_process(module: str, file: Path, arguments: Iterable[Any]) -> dict[str, Any]:
    """Return the result in `file`. If there is none, run the module first, in a process with one thread."""
    if not file.exists():
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, env=environment)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def write_result(file: Path, found: Mapping[str, Any]) -> None:
    """Write the result of a variant and print it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found), file=sys.stderr, flush=True)


def train_run(config: TrainConfig) -> tuple[Path, float]:
    """Train as `reprise train` does, in this process with one thread; return the run's folder and minutes.

    A finished run is not trained again. The minutes of a resumed run are those since it was resumed.
    """
    import torch

    from training.callbacks.build import build_callbacks
    from training.loop.world import make_world
    from training.worker import train_model

    folder = Path(config.run.output) / config.run.name
    taken = folder / "minutes"
    if not taken.exists():
        torch.set_num_threads(1)
        began = time.monotonic()
        train_model(config, make_world(config.parallel), build_callbacks(config))
        taken.write_text(f"{(time.monotonic() - began) / 60:.2f}\n", encoding="utf-8")
    return folder, float(taken.read_text(encoding="utf-8"))


def compute_share(hits: Iterable[float]) -> float:
    """Return the mean of hits, rounded to three digits."""
    return round(mean(map(float, hits)), 3)


def write_sheet(references: Sequence[Any], videos: Any, file: Path) -> None:
    """Write a picture with the reference and the video's frames of up to 16 scenes."""
    from PIL import Image

    side = 48
    picture = Image.new("RGB", (8 * side + 8, 8 * side), "white")
    for index, (shown, video) in enumerate(zip(references[:16], videos[:16], strict=True)):
        x, y = (index // 8) * (4 * side + 8), (index % 8) * side
        picture.paste(shown.resize((side, side)), (x, y))
        for number, frame in enumerate(video):
            pixels = Image.fromarray((np.asarray(frame) * 255).round().astype(np.uint8))
            picture.paste(
                pixels.resize((side - 2, side - 2), Image.Resampling.NEAREST), (x + (number + 1) * side, y)
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


def print_table(results: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print a Markdown table with a row per variant, and the meaning of the columns.

    The cells are means, with several seeds also standard deviations.
    """
    print("| variant | seeds | " + " | ".join(columns) + " | minutes |")
    print("|---" * (len(columns) + 3) + "|")
    for variant in dict.fromkeys(result["variant"] for result in results):
        some = [result for result in results if result["variant"] == variant]
        cells = [variant, str(len(some))]
        for column in columns:
            values = [result[column] for result in some if result[column] is not None]
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.2f}{spread}" if values else "")
        cells.append(f"{mean(result['minutes'] for result in some):.1f}")
        print(f"| {' | '.join(cells)} |")
    for column, meaning in columns.items():
        if meaning:
            print(f"{column}: {meaning}")
