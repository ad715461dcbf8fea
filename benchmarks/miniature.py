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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plain_stage import ENCODE, SCENES, UNLIKE, apart, doors, leave, share, sheet, table, trained
from evaluation.plain_stage import PARTS, judge, likeness, parts_right

CROSSPAIR = "no_crosspair"
VARIANTS = ("shift_hw", "shift_w", "shift_h", "none", CROSSPAIR)
COLUMNS = {
    **dict.fromkeys(PARTS, ""),
    "score": "mean of colour, shape and texture",
    "wrong": "score against what was asked for, when a thing is shown that differs from it in all three",
    "absent": "the same, without a reference",
    "identity": "colour, shape and texture at once",
    "way": "",
    "ground": "correlation of the ground with that of the reference: 0 nothing is copied",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=1600, help="rendered and curated")
    parser.add_argument("--steps", type=int, default=10_000, help="of each training")
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
    table(results, COLUMNS)
    print(json.dumps({"benchmark": "miniature", "results": results}))


def prepare(folder: Path, videos: int) -> None:
    """Videos, dataset, model and latents; what is finished is not done again."""
    steps = {
        "videos": ["playground", "render", "--plain", "--videos", str(videos)],
        "dataset": [
            *("curate", "--input", str(folder / "videos"), "--config", "curation/playground/plain.yaml"),
            "crosspair.share=1.0",  # which are used is drawn in training
        ],
        "model": ["playground", "model"],
        "latents": [
            *("encode", "--dataset", str(folder / "dataset"), "--model", str(folder / "model")),
            *("--config", ENCODE),
        ],
    }
    doors(folder, steps)


def _apart(options: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    """One training in a process of its own; its result."""
    arguments = ["--output", options.output, "--steps", options.steps, "--scenes", options.scenes]
    file = options.output / "results" / f"{variant}-{seed}.json"
    return apart("benchmarks.miniature", file, ["--only", f"{variant}:{seed}", *arguments])


def one(folder: Path, variant: str, seed: int, steps: int, scenes: int) -> None:
    """Train one variant, judge what it generates, write the result."""
    from training.config import TrainConfig

    run, minutes = trained(TrainConfig.model_validate(_recipe(folder, variant, seed, steps)))
    found = {"variant": variant, "seed": seed, "steps": steps, "minutes": round(minutes, 1)}
    found |= judged(run / "model", scenes, picture=folder / "sheets" / f"{variant}-{seed}.png")
    leave(folder / "results" / f"{variant}-{seed}.json", found)


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


def judged(model: Path, scenes: int, *, picture: Path) -> dict[str, float]:
    """What a model's videos of held-out scenes show; `COLUMNS`."""
    from PIL import Image

    from curation.playground.plain import CELLS, IDENTITIES, SIDE, reference, scene_at
    from curation.playground.plain import picture as drawn
    from curation.playground.scenes import to_rgb
    from training.generate.pipeline import ReferenceToVideoPipeline

    pipeline = ReferenceToVideoPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    asked = [scene_at(SCENES, index) for index in range(scenes)]
    prompts = [scene.caption for scene in asked]
    size = {"height": CELLS, "width": CELLS, "num_frames": 3}

    def generate(pictures: Sequence[Sequence[Image.Image]]) -> Any:
        return pipeline(
            prompts, pictures, **size, num_inference_steps=20, guidance_scale=2.0, flow_shift=5.0, seed=1
        ).frames

    right = [Image.fromarray(reference(scene.identity)) for scene in asked]
    wrong = [
        Image.fromarray(reference(IDENTITIES[(IDENTITIES.index(scene.identity) + UNLIKE) % len(IDENTITIES)]))
        for scene in asked
    ]
    # As large as a crop shows it, on the ground of another scene.
    grounds = [scene_at(SCENES + 1, index).ground for index in range(scenes)]
    crops = [
        Image.fromarray(to_rgb(drawn(scene.identity, (0.5, 0.5), ground, SIDE, half=0.45)[0]))
        for scene, ground in zip(asked, grounds, strict=True)
    ]
    videos = generate([[one] for one in right])
    shown = [judge(video) for video in videos]
    others = [judge(video) for video in generate([[one] for one in wrong])]
    nobody = [judge(video) for video in generate([[]] * scenes)]
    cropped = [judge(video) for video in generate([[one] for one in crops])]
    sheet(right, videos, picture)
    seen = list(zip(shown, asked, strict=True))
    tones = np.array([[np.mean(s.ground), np.mean(g)] for s, g in zip(cropped, grounds, strict=True)])
    found = {part: share(parts_right(s, a.identity)[part] for s, a in seen) for part in PARTS}
    return found | {
        "score": share(likeness(s, a.identity) for s, a in seen),
        "wrong": share(likeness(s, a.identity) for s, a in zip(others, asked, strict=True)),
        "absent": share(likeness(s, a.identity) for s, a in zip(nobody, asked, strict=True)),
        "identity": share(s.identity == a.identity for s, a in seen),
        "way": share(s.way == a.way for s, a in seen),
        "ground": round(float(np.corrcoef(tones.T)[0, 1]), 3),
    }


if __name__ == "__main__":
    main()
