"""Run every benchmark whose input is here, one after the other, and print their ratios.

    python -m benchmarks [NAME...]

`grounding` needs a JSONL file of annotated videos in the folder REPRISE_SAMPLES; `truth` needs the demo
(`make demo`); `models` needs the extra `pretrained`, and runs small where there is no GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from curation.models.profiles import PLAYGROUND_WEIGHTS


def list_commands() -> dict[str, list[str] | None]:
    """List name -> arguments; None: the input is missing."""
    samples = sorted(Path(os.environ.get("REPRISE_SAMPLES", "samples")).glob("*.jsonl"))
    demo, truth = Path("demo/dataset"), Path("demo/videos/truth")
    return {
        "slicing": [],
        "pipeline": [],
        "memory": [],
        "export": [],
        "grounding": [str(samples[0])] if samples else None,
        "playground": [] if (PLAYGROUND_WEIGHTS / "detector").is_dir() else None,
        "models": _get_models_arguments(),
        "train_step": _get_step_arguments("wan-1.3b"),
        "replay_step": _get_step_arguments("cogvideox-5b"),
        "truth": [str(demo), str(truth)] if demo.is_dir() and truth.is_dir() else None,
    }


def _get_models_arguments() -> list[str] | None:
    """Choose real sizes with a GPU, else small ones; None: PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    return [] if shutil.which("nvidia-smi") else ["--small"]


def _get_step_arguments(preset: str) -> list[str] | None:
    """Choose real sizes with a GPU, else small ones; None: diffusers is not installed."""
    if importlib.util.find_spec("diffusers") is None:
        return None
    return ["--preset", preset] if shutil.which("nvidia-smi") else []


def main(names: list[str]) -> int:
    """Run the benchmarks of these names (none: all) and print their ratios; return the exit status."""
    known = list_commands()
    unknown = set(names) - known.keys()
    if unknown:
        print(f"no benchmark {sorted(unknown)[0]}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    results: dict[str, dict[str, Any] | str] = {}
    for name, arguments in known.items():
        if names and name not in names:
            continue
        if arguments is None:
            results[name] = "its input is missing"
            continue
        print(f"--- {name}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(done.stdout, end="")
        results[name] = _parse_result(done)
    table = Table("benchmark", "what", "value", box=None)
    for name, result in results.items():
        if isinstance(result, str):
            table.add_row(name, result, "")
            continue
        for key, value in result.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                table.add_row(name, key.replace("_", " "), f"{value:g}")
    Console().print(table)
    return int(any(isinstance(result, str) and "status" in result for result in results.values()))


def _parse_result(done: subprocess.CompletedProcess[str]) -> dict[str, Any] | str:
    """Parse the JSON line at the end of a benchmark's output; else return the reason as text."""
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        found = None
    if done.returncode != 0 or not isinstance(found, dict):
        return f"ended with status {done.returncode}"
    return found


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
