"""The cost of proxy replay's two kinds of steps, relative to training only on videos.

    python -m benchmarks.replay_step                        # small, on the CPU, a few minutes
    python -m benchmarks.replay_step --preset cogvideox-5b  # 49x480x720, LoRA of rank 128, bf16, on a GPU

Steps of the real loop (loader, task, LoRA, FSDP2, clip, AdamW) on random latents and weights: identity,
replay, and plain text-to-video as the baseline. Kinds are interleaved; seconds are medians. Peak memory is
that of a process that makes only steps of one kind. The total is (1 - p) identity + p replay, as measured
and as `reprise train --dry-run` computes it from FLOPs. A step has `--identity` or `--videos` samples: the
paper's 256 and 32 over 8 workers are 32 and 4.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine
from benchmarks.steps import BenchmarkLoop, time_interleaved
from training.config import (
    ComputeConfig,
    IdentityTask,
    LoraConfig,
    ParallelConfig,
    ReplayTask,
    TaskConfig,
    VideoTask,
)
from training.cost import flops
from training.cost.replay_cost import ReplayCost
from training.data.samples import FRAME_VARIANT, PAIR_VARIANT, LatentSize
from training.loop.world import make_world
from training.models.build import make_shape
from training.models.published import PUBLISHED

KINDS = ("identity", "replay", "video")
REPLAY_SHARE = 0.2  # share of replay steps


@dataclass(frozen=True)
class ReplayPreset:
    """A model and the sizes of its steps."""

    transformer: Mapping[str, Any]
    video: LatentSize  # latents
    rank: int
    precision: str
    checkpointing: str
    micro: int  # pictures in a forward pass


PRESETS = {
    "cpu": ReplayPreset(
        {
            "_class_name": "CogVideoXTransformer3DModel",
            "num_attention_heads": 4,
            "attention_head_dim": 64,
            "num_layers": 4,
            "text_embed_dim": 256,
            "max_text_seq_length": 32,
            "use_rotary_positional_embeddings": True,
        },
        video=(13, 16, 24),
        rank=32,
        precision="fp32",
        checkpointing="none",
        micro=4,
    ),
    "cogvideox-5b": ReplayPreset(
        PUBLISHED["THUDM/CogVideoX-5b"],
        video=(13, 60, 90),
        rank=128,
        precision="bf16",
        checkpointing="full",
        micro=4,
    ),
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="cpu")
    parser.add_argument("--runs", type=int, default=3, help="timed steps of each kind")
    parser.add_argument("--identity", type=int, default=32, help="pairs of a step")
    parser.add_argument("--videos", type=int, default=4, help="videos of a step")
    parser.add_argument("--peak", choices=KINDS, help=argparse.SUPPRESS)  # in its own process
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.peak:
            print(measure_peak(Path(folder), options))
            return
        result = measure_steps(Path(folder), options)
    print_result(result)
    print(
        json.dumps(
            {"benchmark": "replay_step", "preset": options.preset, "machine": describe_machine()} | result
        )
    )


def measure_steps(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure seconds, waiting, memory and FLOPs of each kind of step, and the totals."""
    steps = {kind: build_loop(folder / kind, kind, options).step for kind in KINDS}
    times = time_interleaved(steps, options.runs, make_world(ParallelConfig()).device)
    needed = {kind: count_flops(kind, options) for kind in KINDS}
    rows = {
        kind: {
            "seconds": times[kind].median,
            "data_wait": times[kind].waiting,
            "peak_gib": _run_peak_process(kind),
            "flops": needed[kind],
        }
        for kind in KINDS
    }
    seconds, counted = (
        _build_cost({kind: row[name] for kind, row in rows.items()}, options) for name in ("seconds", "flops")
    )
    return {
        "steps": rows,
        "p": REPLAY_SHARE,
        "measured": _compute_shares(seconds),
        "from_flops": _compute_shares(counted),
    }


def build_loop(folder: Path, kind: str, options: argparse.Namespace) -> BenchmarkLoop:
    """Build the loop of one kind of steps."""
    preset = PRESETS[options.preset]
    size = (1, *preset.video[1:]) if kind == "identity" else preset.video
    tasks: dict[str, TaskConfig] = {
        "identity": IdentityTask(latents="", batch=options.identity, micro_batch=preset.micro),
        "replay": ReplayTask(latents="", batch=options.videos, micro_batch=1),
        "video": VideoTask(latents="", batch=options.videos, micro_batch=1),
    }
    return BenchmarkLoop(
        folder,
        preset.transformer,
        tasks[kind],
        size,
        ComputeConfig(precision=preset.precision, checkpointing=preset.checkpointing),
        options.runs + 3,
        references=0 if kind == "video" else 1,
        variant=PAIR_VARIANT if kind == "identity" else FRAME_VARIANT,
        lora=LoraConfig(rank=preset.rank, alpha=preset.rank / 2, dropout=0.1),
    )


def count_flops(kind: str, options: argparse.Namespace) -> float:
    """Count FLOPs of a step, forward and backward, all weights trained; LoRA saves an equal share of each."""
    preset = PRESETS[options.preset]
    shape = make_shape(preset.transformer)
    frame = shape.count_tokens(1, *preset.video[1:])
    dropped = round(ReplayTask(latents="").token_dropout * frame)
    tokens = {
        "identity": 2 * frame,
        "replay": shape.count_tokens(*preset.video) + frame - dropped,
        "video": shape.count_tokens(*preset.video),
    }
    batch = options.identity if kind == "identity" else options.videos
    return float(batch * flops.count_training(shape, tokens[kind]))


def measure_peak(folder: Path, options: argparse.Namespace) -> float:
    """Measure GiB of steps of one kind: model, optimizer, activations; on a CPU the growth of the process."""
    before = _read_resident("VmRSS")
    loop = build_loop(folder, options.peak, options)
    for _ in range(2):
        loop.step()
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / (1 << 30)
    return _read_resident("VmHWM") - before


def _read_resident(which: str) -> float:
    """GiB of this process now (VmRSS) or at most (VmHWM); getrusage may report the parent's peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{which}:")[2].split()[0]) / (1 << 20)


def _run_peak_process(kind: str) -> float:
    command = [sys.executable, "-m", "benchmarks.replay_step", *sys.argv[1:], "--peak", kind]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def _build_cost(values: Mapping[str, float], options: argparse.Namespace) -> tuple[ReplayCost, float]:
    """Return the cost with values per sample, and the value of a step only on videos."""
    replay = ReplayCost(
        p=REPLAY_SHARE,
        image=values["identity"] / options.identity,
        video=values["replay"] / options.videos,
        image_batch=options.identity,
        video_batch=options.videos,
    )
    return replay, values["video"]


def _compute_shares(cost: tuple[ReplayCost, float]) -> dict[str, float]:
    replay, video_alone = cost
    equal = (1 - REPLAY_SHARE) * replay.image + REPLAY_SHARE * replay.video
    return {
        "a_video_in_pictures": replay.video / replay.image,
        "of_videos_alone": replay.expected / video_alone,
        "of_videos_alone_at_equal_batches": equal / (video_alone / replay.video_batch),
    }


def print_result(result: Mapping[str, Any]) -> None:
    """Print the table of steps and the ratios."""
    print("| step | seconds | waiting for data | peak memory |\n|---|---|---|---|")
    for kind, row in result["steps"].items():
        wait = f"{100 * row['data_wait']:.2f} %"
        print(f"| {kind} | {row['seconds']:.2f} | {wait} | {row['peak_gib']:.2f} GiB |")
    for name in ("measured", "from_flops"):
        figures = ", ".join(f"{key} {value:.3g}" for key, value in result[name].items())
        print(f"{name}: {figures}")


if __name__ == "__main__":
    main()
