"""What the miniatures on the plain stage share: commands that are run once, trainings in processes of their
own, a picture to look at, a table.
"""

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
UNLIKE_OFFSET = 13  # so many on in the list of identities, colour, shape and texture are all others


def run_commands(folder: Path, steps: Mapping[str, Sequence[str]]) -> None:
    """Run commands of `reprise`, each for the folder of its name; what is finished is not done again."""
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
    """What a module leaves in `file`: run with one thread, in a process of its own, unless it is there."""
    if not file.exists():
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, env=environment)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def write_result(file: Path, found: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found), file=sys.stderr, flush=True)


def train_run(config: TrainConfig) -> tuple[Path, float]:
    """Train as `reprise train` does, in this process with one thread: the run's folder, and minutes.

    A run that is finished is not trained again; of an interrupted one the last sitting's minutes count.
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
    return round(mean(map(float, hits)), 3)


def write_sheet(references: Sequence[Any], videos: Any, file: Path) -> None:
    """A picture to look at: of up to 16 scenes the reference and the frames of the video."""
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
    """Print Markdown, a row a variant: mean and, over several seeds, standard deviation; then what columns
    mean, where their names do not say it.
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
    for column, words in columns.items():
        if words:
            print(f"{column}: {words}")
