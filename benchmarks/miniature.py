"""Kaleido's ablations in miniature: does the model use the subject of its reference, and in which variants?

    python -m benchmarks.miniature --output runs/miniature [--variants shift_hw,none] [--seeds 3] [--jobs 2]

It renders and curates videos of the plain stage, encodes them, and trains the small Wan model once for each
variant and seed, as `reprise train --recipe playground` does. Then it judges the pixels of decoded videos of
held-out scenes: which of the 32 identities is visible and in which direction it moves, with the right
reference, with that of another thing, and with none; and whether the model copies the reference's ground. Run
it again to continue.

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

from benchmarks.miniature_runs import (
    ENCODE_CONFIG,
    JUDGED_SEED,
    UNLIKE_OFFSET,
    compute_share,
    print_table,
    run_commands,
    run_in_process,
    train_run,
    write_result,
    write_sheet,
)
from evaluation.plain_stage import PARTS, compare_parts, compute_likeness, judge_video

NO_CROSSPAIR = "no_crosspair"
VARIANTS = ("shift_hw", "shift_w", "shift_h", "none", NO_CROSSPAIR)
COLUMNS = {
    **dict.fromkeys(PARTS, ""),
    "score": "mean of colour, shape and texture",
    "wrong": "the score, with the reference of a thing that differs from the wanted one in all three",
    "absent": "the score without a reference",
    "identity": "colour, shape and texture at once",
    "way": "",
    "ground": "correlation of the ground with that of the reference: 0 nothing is copied",
}


def main() -> None:
    """Run the command."""
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
    parser.add_argument("--only", help=argparse.SUPPRESS)  # VARIANT:SEED, in its own process
    options = parser.parse_args()
    if options.only:
        variant, seed = options.only.split(":")
        train_variant(options.output, variant, int(seed), options.steps, options.scenes)
        return
    prepare_data(options.output, options.videos)
    todo = [(variant, seed) for variant in options.variants.split(",") for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda each: _run_variant(options, *each), todo))
    print_table(results, COLUMNS)
    print(json.dumps({"benchmark": "miniature", "results": results}))


def prepare_data(folder: Path, videos: int) -> None:
    """Make videos, dataset, model and latents. Finished parts are not made again."""
    steps = {
        "videos": ["playground", "render", "--plain", "--videos", str(videos)],
        "dataset": [
            *("curate", "--input", str(folder / "videos"), "--config", "curation/playground/plain.yaml"),
            "crosspair.share=1.0",  # training draws which of them it uses
        ],
        "model": ["playground", "model"],
        "latents": [
            *("encode", "--dataset", str(folder / "dataset"), "--model", str(folder / "model")),
            *("--config", ENCODE_CONFIG),
        ],
    }
    run_commands(folder, steps)


def _run_variant(options: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    """Return the result of one training, which runs in its own process."""
    arguments = ["--output", options.output, "--steps", options.steps, "--scenes", options.scenes]
    file = options.output / "results" / f"{variant}-{seed}.json"
    return run_in_process("benchmarks.miniature", file, ["--only", f"{variant}:{seed}", *arguments])


def train_variant(folder: Path, variant: str, seed: int, steps: int, scenes: int) -> None:
    """Train one variant, judge its videos, write the result."""
    from training.config import TrainConfig

    run, minutes = train_run(TrainConfig.model_validate(_build_recipe(folder, variant, seed, steps)))
    found = {"variant": variant, "seed": seed, "steps": steps, "minutes": round(minutes, 1)}
    found |= judge_model(run / "model", scenes, picture=folder / "sheets" / f"{variant}-{seed}.png")
    write_result(folder / "results" / f"{variant}-{seed}.json", found)


def _build_recipe(folder: Path, variant: str, seed: int, steps: int) -> dict[str, Any]:
    import yaml

    recipe: dict[str, Any] = yaml.safe_load(Path("training/recipes/playground.yaml").read_text("utf-8"))
    recipe["steps"], recipe["seed"] = steps, seed
    recipe["model"]["path"] = str(folder / "model")
    recipe["tasks"][0]["latents"] = str(folder / "latents")
    recipe["run"] = {"name": f"{variant}-{seed}", "output": str(folder / "runs")}
    recipe["log"]["tensorboard"] = False
    if variant == NO_CROSSPAIR:
        recipe["tasks"][0]["mixture"] = {"crosspair": 0}
    else:
        recipe["positions"] = {"scheme": variant}
    return recipe


def judge_model(model: Path, scenes: int, *, picture: Path) -> dict[str, float]:
    """Judge a model's videos of held-out scenes; return `COLUMNS`."""
    from PIL import Image

    from curation.playground.plain import (
        CELLS,
        IDENTITIES,
        SIDE,
        draw_identity,
        draw_picture,
        make_plain_scene,
    )
    from curation.playground.scenes import round_to_rgb
    from training.generate.pipeline import ReferenceToVideoPipeline

    pipeline = ReferenceToVideoPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    scenes_asked = [make_plain_scene(JUDGED_SEED, index) for index in range(scenes)]
    prompts = [scene.caption for scene in scenes_asked]
    size = {"height": CELLS, "width": CELLS, "num_frames": 3}

    def generate_videos(pictures: Sequence[Sequence[Image.Image]]) -> Any:
        return pipeline(
            prompts, pictures, **size, num_inference_steps=20, guidance_scale=2.0, flow_shift=5.0, seed=1
        ).frames

    right = [Image.fromarray(draw_identity(scene.identity)) for scene in scenes_asked]
    wrong = [
        Image.fromarray(
            draw_identity(IDENTITIES[(IDENTITIES.index(scene.identity) + UNLIKE_OFFSET) % len(IDENTITIES)])
        )
        for scene in scenes_asked
    ]
    # The reference shows the subject as large as in a crop, on the ground of another scene.
    grounds = [make_plain_scene(JUDGED_SEED + 1, index).ground for index in range(scenes)]
    crops = [
        Image.fromarray(round_to_rgb(draw_picture(scene.identity, (0.5, 0.5), ground, SIDE, half=0.45)[0]))
        for scene, ground in zip(scenes_asked, grounds, strict=True)
    ]
    videos = generate_videos([[one] for one in right])
    shown = [judge_video(video) for video in videos]
    others = [judge_video(video) for video in generate_videos([[one] for one in wrong])]
    unconditioned = [judge_video(video) for video in generate_videos([[]] * scenes)]
    cropped = [judge_video(video) for video in generate_videos([[one] for one in crops])]
    write_sheet(right, videos, picture)
    seen = list(zip(shown, scenes_asked, strict=True))
    tones = np.array([[np.mean(s.ground), np.mean(g)] for s, g in zip(cropped, grounds, strict=True)])
    found = {part: compute_share(compare_parts(s, a.identity)[part] for s, a in seen) for part in PARTS}
    return found | {
        "score": compute_share(compute_likeness(s, a.identity) for s, a in seen),
        "wrong": compute_share(
            compute_likeness(s, a.identity) for s, a in zip(others, scenes_asked, strict=True)
        ),
        "absent": compute_share(
            compute_likeness(s, a.identity) for s, a in zip(unconditioned, scenes_asked, strict=True)
        ),
        "identity": compute_share(s.identity == a.identity for s, a in seen),
        "way": compute_share(s.way == a.way for s, a in seen),
        "ground": round(float(np.corrcoef(tones.T)[0, 1]), 3),
    }


if __name__ == "__main__":
    main()
