"""Kaleido's ablations in miniature: is the subject taken from its reference, and what does that depend on?

    python -m benchmarks.miniature --output runs/miniature [--variants shift_hw,none] [--seeds 3] [--jobs 2]

Renders and curates videos of the plain stage, encodes them, trains its small Wan model once for each variant
and seed with the loop and recipe that `reprise train --recipe playground` runs, and judges decoded videos of
held-out scenes on their pixels: which of the 32 identities is shown and which way it moves, with the right
reference, with another thing's, and with none; and whether the ground of the reference is copied. Run it
again to go on.

Variants: the schemes of Kaleido's Tables 2 and 5, and `no_crosspair`, Table 3.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

CROSSPAIR = "no_crosspair"
VARIANTS = ("shift_hw", "shift_w", "shift_h", "none", CROSSPAIR)
PARTS = ("colour", "shape", "texture")
COLUMNS = (*PARTS, "score", "wrong", "absent", "identity", "way", "ground")
_HEAD = {
    "score": "mean of colour, shape and texture",
    "wrong": "score against what was asked for, when a thing is shown that differs from it in all three",
    "absent": "the same, without a reference",
    "identity": "colour, shape and texture at once",
    "ground": "correlation of the ground with that of the reference: 0 nothing is copied",
}
_SCENES = 900_001  # seed of the judged scenes; training videos have seed 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=1600, help="rendered and curated")
    parser.add_argument("--steps", type=int, default=8000, help="of each training")
    parser.add_argument("--scenes", type=int, default=96, help="judged, for each model")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, one thread each")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # VARIANT:SEED, in a process of its own
    options = parser.parse_args()
    if options.only:
        variant, seed = options.only.split(":")
        one(options.output, variant, int(seed), options.steps, options.scenes)
        return
    prepare(options.output, options.videos)
    todo = [(variant, seed) for variant in options.variants.split(",") for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda each: _apart(options, *each), todo))
    show(results)


def prepare(folder: Path, videos: int) -> None:
    """Videos, dataset, model and latents; what is finished is not done again."""
    steps: dict[str, list[str]] = {
        "videos": ["playground", "render", "--plain", "--videos", str(videos)],
        "dataset": [
            *("curate", "--input", str(folder / "videos"), "--config", "curation/playground/plain.yaml"),
            "crosspair.share=1.0",  # which are used is drawn in training
        ],
        "model": ["playground", "model"],
        "latents": [
            *("encode", "--dataset", str(folder / "dataset"), "--model", str(folder / "model")),
            *("--config", "training/playground/encode.yaml"),
        ],
    }
    for name, (door, *arguments) in steps.items():
        done = folder / f".{name}.done"
        if done.exists():
            continue
        began = time.monotonic()
        command = [sys.executable, "-m", f"pipelines.{door}", *arguments, "--output", str(folder / name)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        done.touch()
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _apart(options: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    """One training in a process of its own; its result."""
    file = options.output / "results" / f"{variant}-{seed}.json"
    if not file.exists():
        arguments = ["--output", options.output, "--steps", options.steps, "--scenes", options.scenes]
        command = [sys.executable, "-m", "benchmarks.miniature", "--only", f"{variant}:{seed}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, *map(str, arguments)], check=True, env=environment)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def one(folder: Path, variant: str, seed: int, steps: int, scenes: int) -> None:
    """Train one variant, judge what it generates, write the result."""
    import torch

    from training.callbacks.build import build_callbacks
    from training.config import TrainConfig
    from training.loop.loop import train
    from training.loop.world import make_world

    torch.set_num_threads(1)
    config = TrainConfig.model_validate(_recipe(folder, variant, seed, steps))
    began = time.monotonic()
    train(config, make_world(config.parallel), build_callbacks(config))
    minutes = (time.monotonic() - began) / 60
    model = folder / "runs" / config.run.name / "model"
    found = {"variant": variant, "seed": seed, "steps": steps, "minutes": round(minutes, 1)}
    found |= judged(model, scenes, sheet=folder / "sheets" / f"{variant}-{seed}.png")
    file = folder / "results" / f"{variant}-{seed}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found), file=sys.stderr, flush=True)


def _recipe(folder: Path, variant: str, seed: int, steps: int) -> dict[str, Any]:
    import yaml

    recipe: dict[str, Any] = yaml.safe_load(Path("training/recipes/playground.yaml").read_text("utf-8"))
    recipe["steps"], recipe["seed"] = steps, seed
    recipe["model"]["path"] = str(folder / "model")
    recipe["tasks"][0]["latents"] = str(folder / "latents")
    recipe["run"] = {"name": f"{variant}-{seed}", "output": str(folder / "runs")}
    recipe["log"]["tensorboard"] = False
    if variant == CROSSPAIR:
        recipe["tasks"][0]["mixture"] = {"crosspair": 0}
    else:
        recipe["positions"] = {"scheme": variant}
    return recipe


def judged(model: Path, scenes: int, *, sheet: Path | None = None) -> dict[str, float]:
    """What a model's videos of held-out scenes show; `COLUMNS`."""
    from PIL import Image

    from curation.playground.plain import CELLS, IDENTITIES, SIDE, picture, reference, scene_at
    from curation.playground.scenes import to_rgb
    from evaluation.plain_stage import Shown, judge
    from training.pipeline import ReferenceToVideoPipeline

    pipeline = ReferenceToVideoPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    asked = [scene_at(_SCENES, index) for index in range(scenes)]
    prompts = [scene.caption for scene in asked]
    size = {"height": CELLS, "width": CELLS, "num_frames": 3}

    def generate(pictures: Sequence[Sequence[Image.Image]]) -> Any:
        return pipeline(
            prompts, pictures, **size, num_inference_steps=20, guidance_scale=2.0, flow_shift=5.0, seed=1
        ).frames

    right = [Image.fromarray(reference(scene.identity)) for scene in asked]
    # Another thing: a colour, two shapes and the texture on, so that nothing of it is right.
    wrong = [
        Image.fromarray(reference(IDENTITIES[(IDENTITIES.index(scene.identity) + 13) % len(IDENTITIES)]))
        for scene in asked
    ]
    # As large as a crop shows it, on the ground of another scene.
    grounds = [scene_at(_SCENES + 1, index).ground for index in range(scenes)]
    crops = [
        Image.fromarray(to_rgb(picture(scene.identity, (0.5, 0.5), ground, SIDE, half=0.45)[0]))
        for scene, ground in zip(asked, grounds, strict=True)
    ]
    videos = generate([[one] for one in right])
    shown = [judge(video) for video in videos]
    others = [judge(video) for video in generate([[one] for one in wrong])]
    nobody = [judge(video) for video in generate([[]] * scenes)]
    cropped = [judge(video) for video in generate([[one] for one in crops])]
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        _sheet(right[:16], videos[:16]).save(sheet)

    def share(hits: Iterable[bool]) -> float:
        return round(mean(map(float, hits)), 3)

    def parts(seen: Sequence[Shown]) -> dict[str, float]:
        return {
            part: share(
                s.identity is not None and getattr(s.identity, part) == getattr(a.identity, part)
                for s, a in zip(seen, asked, strict=True)
            )
            for part in PARTS
        }

    tones = np.array([[np.mean(s.ground), np.mean(g)] for s, g in zip(cropped, grounds, strict=True)])
    found = parts(shown)
    return found | {
        "score": round(mean(found.values()), 3),
        "wrong": round(mean(parts(others).values()), 3),
        "absent": round(mean(parts(nobody).values()), 3),
        "identity": share(s.identity == a.identity for s, a in zip(shown, asked, strict=True)),
        "way": share(s.way == a.way for s, a in zip(shown, asked, strict=True)),
        "ground": round(float(np.corrcoef(tones.T)[0, 1]), 3),
    }


def _sheet(references: Sequence[Any], videos: Any) -> Any:
    """A picture to look at: a row a scene, its reference and the frames of its video."""
    from PIL import Image

    side = 48
    sheet = Image.new("RGB", (8 * side + 8, 8 * side), "white")
    for index, (shown, video) in enumerate(zip(references, videos, strict=True)):
        x, y = (index // 8) * (4 * side + 8), (index % 8) * side
        sheet.paste(shown.resize((side, side)), (x, y))
        for number, frame in enumerate(video):
            pixels = Image.fromarray((np.asarray(frame) * 255).round().astype(np.uint8))
            sheet.paste(
                pixels.resize((side - 2, side - 2), Image.Resampling.NEAREST), (x + (number + 1) * side, y)
            )
    return sheet


def show(results: Sequence[dict[str, Any]]) -> None:
    """A Markdown table: mean and, over several seeds, standard deviation; then one line of JSON."""
    print("| variant | " + " | ".join(COLUMNS) + " | minutes |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    variants = list(dict.fromkeys(result["variant"] for result in results))
    for variant in variants:
        some = [result for result in results if result["variant"] == variant]
        cells = []
        for column in COLUMNS:
            values = [result[column] for result in some]
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.2f}{spread}")
        print(f"| {variant} | " + " | ".join(cells) + f" | {mean(r['minutes'] for r in some):.0f} |")
    for column, words in _HEAD.items():
        print(f"{column}: {words}")
    print(json.dumps({"benchmark": "miniature", "results": list(results)}))


if __name__ == "__main__":
    main()
