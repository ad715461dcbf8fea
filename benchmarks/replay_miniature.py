"""Proxy replay in miniature: how do the paper's training strategies change identity and motion?

    python -m benchmarks.replay_miniature --output runs/replay-miniature [--variants replay,joint] [--seeds 3]

It renders videos and pairs of pictures of the plain stage, and trains a tiny CogVideoX only on the videos
(recipe playground-t2v). Then it trains that model once for each variant and seed (recipe playground-replay,
equal steps). It judges the pixels of decoded videos of held-out scenes: does the thing look as in the
reference picture, and does it move as the caption describes? It prints a table and draws `figure.png`. Run it
again to continue.

Variants: image-only, two-stage, joint (Tables 3 and 7), and values of p (Table 9), of which 0 is image-only
and 0.2 is replay; and 1, only videos.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

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


@dataclass(frozen=True)
class ReplayVariant:
    """How one of the paper's runs differs from the recipe."""

    stages: tuple[tuple[str, ...], ...] = ((),)  # overrides of each training; they share the steps evenly
    with_reference: bool = True  # whether the judged videos get a reference


BASE = "pretrained"
VARIANTS = {
    BASE: ReplayVariant(stages=(), with_reference=False),
    "image-only": ReplayVariant((("replay=0",),)),
    "two-stage": ReplayVariant((("replay=0",), ("replay=1",))),
    # It drops all image tokens, so it takes no reference.
    "joint": ReplayVariant(
        (("tasks.0.reference_dropout=1", "tasks.1.reference_dropout=1"),), with_reference=False
    ),
    "replay": ReplayVariant(),
    "p=0.1": ReplayVariant((("replay=0.1",),)),
    "p=0.4": ReplayVariant((("replay=0.4",),)),
    "p=0.6": ReplayVariant((("replay=0.6",),)),
    "p=1": ReplayVariant((("replay=1",),)),  # not in the paper: identity only from videos
}
SWEEP = {0.0: "image-only", 0.1: "p=0.1", 0.2: "replay", 0.4: "p=0.4", 0.6: "p=0.6", 1.0: "p=1"}
STRATEGIES = ("image-only", "two-stage", "joint", "replay")
COLUMNS = {
    "identity": "share of colour, shape and texture that are the reference's; 0.33 by chance",
    "exact": "all three at once; 0.03 by chance",
    "wrong": "identity, with the reference of a thing that differs in all three",
    "still": "identity of a single generated frame, with the caption of image steps",
    "motion": "moves as the caption describes; 0.25 by chance",
    "frozen": "a thing is visible and does not move",
    "seen": "a thing is visible",
    "cosine": "of the two tasks' gradients, mean over the last quarter of the steps",
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/replay-miniature"))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=1600, help="rendered")
    parser.add_argument("--pairs", type=int, default=3000, help="of pictures, rendered")
    parser.add_argument("--pretrain", type=int, default=6000, help="steps only on videos")
    parser.add_argument("--steps", type=int, default=1600, help="of each variant, all its stages together")
    parser.add_argument("--scenes", type=int, default=64, help="judged, for each model")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, one thread each")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # VARIANT:SEED, in its own process
    options = parser.parse_args()
    if options.only:
        variant, _, seed = options.only.partition(":")
        train_variant(options, variant, int(seed))
        return
    prepare_data(options.output, options.videos, options.pairs)
    todo = [(BASE, 0)]  # the model from which all others start
    results = [_run_variant(options, *todo[0])]
    names = [name for name in options.variants.split(",") if name != BASE]
    todo = [(name, seed) for seed in range(options.seeds) for name in names]
    with ThreadPoolExecutor(options.jobs) as pool:
        results += pool.map(lambda each: _run_variant(options, *each), todo)
    print_table(sorted(results, key=lambda result: list(VARIANTS).index(result["variant"])), COLUMNS)
    curves = [result for result in results if result["variant"] != BASE]
    (options.output / "figure.png").write_bytes(draw_figure(curves))
    print(json.dumps({"benchmark": "replay_miniature", "results": results}))


def prepare_data(folder: Path, videos: int, pairs: int) -> None:
    """Make videos, pairs, model and latents. Finished parts are not made again."""
    encode = ("encode", "--model", str(folder / "model"), "--config", ENCODE_CONFIG)
    run_commands(
        folder,
        {
            "videos": ["playground", "render", "--plain", "--videos", str(videos)],
            "pairs": ["playground", "render", "--pairs", str(pairs)],
            "model": ["playground", "model", "--family", "cogvideox"],
            "video-latents": [*encode, "--videos", str(folder / "videos"), "frames_alone=3"],
            "pair-latents": [*encode, "--pairs", str(folder / "pairs" / "pairs.jsonl")],
        },
    )


def _run_variant(options: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    """Return the result of one variant, which runs in its own process."""
    names = ("output", "pretrain", "steps", "scenes")
    arguments = [part for name in names for part in (f"--{name}", getattr(options, name))]
    file = options.output / "results" / f"{variant}-{seed}.json"
    return run_in_process("benchmarks.replay_miniature", file, ["--only", f"{variant}:{seed}", *arguments])


def train_variant(options: argparse.Namespace, variant: str, seed: int) -> None:
    """Train one variant from the pretrained model, judge its videos, write the result."""
    folder: Path = options.output
    found: dict[str, Any] = {"variant": variant, "seed": seed}
    run, minutes = train_base(options)
    if variant == BASE:
        found |= {"steps": options.pretrain, "minutes": minutes, "cosine": None, "cosines": []}
    else:
        run, minutes, cosines = train_stages(options, run, variant, seed)
        late = [value for step, value in cosines if step >= 0.75 * options.steps]
        found |= {"steps": options.steps, "minutes": round(minutes, 1)}
        found |= {"cosine": round(mean(late), 3) if late else None, "cosines": cosines}
    picture = folder / "sheets" / f"{variant}-{seed}.png"
    found |= judge_model(
        run / "model", options.scenes, with_reference=VARIANTS[variant].with_reference, picture=picture
    )
    write_result(folder / "results" / f"{variant}-{seed}.json", found)


def train_base(options: argparse.Namespace) -> tuple[Path, float]:
    """Train the run only on videos, from which all variants start; return its folder and minutes."""
    folder: Path = options.output
    overrides = (
        *(f"steps={options.pretrain}", f"run.name={BASE}", f"run.output={folder / 'runs'}"),
        *(f"model.path={folder / 'model'}", f"tasks.0.latents={folder / 'video-latents'}"),
        "log.tensorboard=false",
    )
    return train_run(load_recipe("playground-t2v", *overrides))


def train_stages(
    options: argparse.Namespace, run: Path, variant: str, seed: int
) -> tuple[Path, float, list[tuple[int, float]]]:
    """Train the stages of a variant one after the other, from the model of `run`.

    Returns:
        The folder of the last run, the minutes of all, and (step, cosine of the two gradients), with steps
        counted over all stages.
    """
    from reprise.storage import Storage
    from training.callbacks.metrics_file import read_metrics
    from training.gradient_conflict.plot import COSINE_KEY

    folder, stages = options.output, VARIANTS[variant].stages
    steps, total = options.steps // len(stages), 0.0
    cosines: list[tuple[int, float]] = []
    for number, changes in enumerate(stages):
        name = f"{variant}-{seed}" + (f"-stage{number + 1}" if len(stages) > 1 else "")
        overrides = (
            *(f"steps={steps}", f"seed={seed}", f"run.name={name}", f"run.output={folder / 'runs'}"),
            *(f"model.path={run / 'model'}", f"tasks.0.latents={folder / 'pair-latents'}"),
            *(f"tasks.1.latents={folder / 'video-latents'}", "log.tensorboard=false", *changes),
        )
        run, minutes = train_run(load_recipe("playground-replay", *overrides))
        total += minutes
        records = [record for record in read_metrics(Storage.from_uri(str(run))) if COSINE_KEY in record]
        cosines += [(number * steps + row["step"], round(row[COSINE_KEY], 4)) for row in records]
    return run, total, cosines


def load_recipe(recipe: str, *overrides: str) -> Any:
    """Load a recipe with overrides."""
    from reprise.settings import load_settings
    from training.config import TrainConfig

    return load_settings(TrainConfig, Path(f"training/recipes/{recipe}.yaml"), overrides)


def judge_model(model: Path, scenes: int, *, with_reference: bool, picture: Path) -> dict[str, float]:
    """Judge a model's videos of held-out scenes; return `COLUMNS` and the parts of an identity."""
    from PIL import Image

    from curation.playground.plain import CELLS, IDENTITIES, STILL, draw_identity, make_plain_scene
    from evaluation.plain_stage import PARTS, compare_parts, compute_likeness, is_frozen, judge_video
    from training.generate.pipeline import ReferenceToVideoPipeline

    pipeline = ReferenceToVideoPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    scenes_asked = [make_plain_scene(JUDGED_SEED, index) for index in range(scenes)]

    def generate_videos(offset: int, prompts: list[str], frames: int = 3) -> Any:
        """Generate videos with the references of things that are `offset` later in the list of identities."""
        things = [IDENTITIES[(IDENTITIES.index(a.identity) + offset) % len(IDENTITIES)] for a in scenes_asked]
        pictures = [Image.fromarray(draw_identity(thing)) for thing in things]
        videos = pipeline(
            prompts,
            [[each] for each in pictures] if with_reference else [[] for _ in scenes_asked],
            height=CELLS,
            width=CELLS,
            num_frames=frames,
            num_inference_steps=20,
            guidance_scale=2.0,
            seed=1,
        ).frames
        return pictures, videos

    captions = [scene.caption for scene in scenes_asked]
    references, videos = generate_videos(0, captions)
    write_sheet(references, videos, picture)
    seen = [judge_video(video) for video in videos]
    others = (
        [judge_video(video) for video in generate_videos(UNLIKE_OFFSET, captions)[1]]
        if with_reference
        else seen
    )
    stills = [
        judge_video(video.repeat(2, axis=0)) for video in generate_videos(0, [STILL] * scenes, frames=1)[1]
    ]
    pairs = list(zip(seen, scenes_asked, strict=True))
    found = {part: compute_share(compare_parts(s, a.identity)[part] for s, a in pairs) for part in PARTS}
    return found | {
        "identity": compute_share(compute_likeness(s, a.identity) for s, a in pairs),
        "exact": compute_share(s.identity == a.identity for s, a in pairs),
        "wrong": compute_share(
            compute_likeness(s, a.identity) for s, a in zip(others, scenes_asked, strict=True)
        ),
        "still": compute_share(
            compute_likeness(s, a.identity) for s, a in zip(stills, scenes_asked, strict=True)
        ),
        "motion": compute_share(s.way == a.way for s, a in pairs),
        "frozen": compute_share(is_frozen(s) for s in seen),
        "seen": compute_share(s.identity is not None for s in seen),
    }


def draw_figure(results: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw a PNG of the results.

    Left: the cosine of the two gradients over the steps, for each strategy; thin lines are seeds, thick ones
    the mean over seeds and five neighbours. Right: scores over p, mean and standard deviation over seeds.
    """
    import io

    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.axhline(0, color="0.7", linewidth=0.8)
    for number, name in enumerate(STRATEGIES):
        curves = [result["cosines"] for result in results if result["variant"] == name]
        for curve in curves:
            left.plot(*zip(*curve, strict=True), color=f"C{number}", linewidth=0.5, alpha=0.3)
        if curves:
            steps, values = np.array(curves[0])[:, 0], np.array(curves)[:, :, 1].mean(axis=0)
            width = min(5, len(steps))
            smooth = np.convolve(values, np.ones(width) / width, "valid")
            begin = width // 2
            left.plot(
                steps[begin : begin + len(smooth)], smooth, color=f"C{number}", linewidth=1.6, label=name
            )
    left.set(xlabel="step", ylabel="cosine of the two tasks' gradients")
    left.legend(frameon=False)
    for number, score in enumerate(("identity", "motion", "frozen")):
        points = []
        for p, name in SWEEP.items():
            values = [result[score] for result in results if result["variant"] == name]
            if values:
                points.append((p, mean(values), stdev(values) if len(values) > 1 else 0.0))
        if points:
            ps, scores, spreads = zip(*points, strict=True)
            right.errorbar(ps, scores, spreads, fmt="o-", color=f"C{number}", capsize=3, label=score)
    right.set(xlabel="p, share of replay steps", ylabel="share of judged videos", ylim=(0, 1))
    right.legend(frameon=False)
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=130)
    return memory.getvalue()


if __name__ == "__main__":
    main()
