"""One training step against the bare transformer, and references against plain text-to-video.

    python -m benchmarks.train_step                            # small, on the CPU, under two minutes
    python -m benchmarks.train_step --preset wan-1.3b          # 81x480x832, 3 references, bf16, on a GPU
    python -m benchmarks.train_step --preset wan-1.3b --ladder # the gain of each setting

(a) A step of the real loop (loader, task, FSDP2, clip, AdamW) against forward and backward of the same
transformer, with the same checkpointing and compilation, on tensors in memory, for equally many samples. (b)
A step with references against one without, with equally many tokens. A step accumulates over `--batch`
samples, one at a time, as the recipes do (256 samples on 8 GPUs: 32 each). Kinds are interleaved. A ratio is
the median over the rounds of the ratio within a round, with its quartiles; above 1 is faster than the
baseline. Weights are random. On a CPU the time of one thread counts. Other work on the machine slows all
steps of a round, so it has little effect.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine
from benchmarks.steps import BenchmarkLoop, compare_pairs, get_clock, time_interleaved
from training.callbacks.log import resolve_peak_flops
from training.config import ComputeConfig, KaleidoTask, ParallelConfig, TaskConfig, VideoTask
from training.cost import activations, flops
from training.data.samples import LatentSize
from training.loop.world import make_world
from training.models.build import make_shape
from training.models.published import PUBLISHED
from training.precision import DTYPES


@dataclass(frozen=True)
class TrainPreset:
    """A model and the size of its samples."""

    transformer: dict[str, Any]
    video: LatentSize  # latents
    references: int
    precision: str
    checkpointing: str


PRESETS = {
    # Wide enough that a step is matrix products, small enough for two cores.
    "cpu": TrainPreset(
        {
            "_class_name": "WanTransformer3DModel",
            "num_attention_heads": 4,
            "attention_head_dim": 64,
            "ffn_dim": 1024,
            "num_layers": 4,
            "text_dim": 256,
        },
        video=(5, 16, 16),
        references=3,
        precision="fp32",
        checkpointing="none",
    ),
    "wan-1.3b": TrainPreset(
        PUBLISHED["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"],
        video=(21, 60, 104),
        references=3,
        precision="bf16",
        checkpointing="full",
    ),
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="cpu")
    parser.add_argument("--runs", type=int, default=15, help="timed steps of each kind")
    parser.add_argument("--batch", type=int, default=8, help="samples of a step, one forward pass each")
    parser.add_argument("--attention", help="diffusers attention backend, such as _native_flash or flash")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--checkpointing", choices=["none", "selective", "full"])
    parser.add_argument(
        "--ladder", action="store_true", help="settings one after the other, each on top of the last"
    )
    arguments = parser.parse_args()
    preset = PRESETS[arguments.preset]
    if arguments.checkpointing:
        preset = replace(preset, checkpointing=arguments.checkpointing)
    settings = ComputeConfig(
        precision=preset.precision,
        checkpointing=preset.checkpointing,
        compile=arguments.compile,
        attention=arguments.attention,
    )
    result: dict[str, Any] = {"machine": describe_machine(), "preset": arguments.preset}
    if torch.cuda.is_available():
        result["gpu"] = torch.cuda.get_device_name()
    else:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.ladder:
            result["ladder"] = list(
                measure_ladder(Path(folder), preset, settings, arguments.runs, arguments.batch)
            )
        else:
            result |= measure_setting(Path(folder), preset, settings, arguments.runs, arguments.batch)
    print(json.dumps(result))


def measure_ladder(
    folder: Path, preset: TrainPreset, base: ComputeConfig, runs: int, batch: int
) -> Iterator[dict[str, Any]]:
    """Measure the gain of each setting together with the useful ones before it.

    A failure gives its reason.
    """
    best, best_seconds = base, float("inf")
    steps: list[tuple[str, dict[str, Any]]] = [
        ("as it is", {}),
        ("cuDNN attention", {"attention": "_native_cudnn"}),
        ("flash attention", {"attention": "_native_flash"}),
        ("FlashAttention 3", {"attention": "_flash_3_hub"}),
        ("compile", {"compile": True}),
        ("checkpoint all but products", {"checkpointing": "selective"}),
        ("checkpoint nothing", {"checkpointing": "none"}),
    ]
    for number, (name, change) in enumerate(steps):
        settings = best.model_copy(update=change)
        try:
            found = measure_setting(folder / str(number), preset, settings, runs, batch, ratios=False)
        except Exception as error:  # out of memory or a missing kernel: the ladder continues
            gc.collect()
            torch.cuda.empty_cache()
            yield {"step": name, "error": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
            continue
        if found["step_seconds"] < best_seconds:
            best, best_seconds = settings, found["step_seconds"]
        print(
            f"{name:<32} {found['step_seconds']:8.3f} s  MFU {found.get('mfu', float('nan')):.3f}", flush=True
        )
        yield {"step": name, **found, "kept": best == settings}


def measure_setting(
    folder: Path, preset: TrainPreset, compute: ComputeConfig, runs: int, batch: int, *, ratios: bool = True
) -> dict[str, Any]:
    """Measure one setting."""
    shape = make_shape(preset.transformer)
    tokens = shape.count_tokens(*preset.video) + preset.references * shape.count_tokens(1, *preset.video[1:])
    world = make_world(ParallelConfig())

    def build_loop(kind: TaskConfig, video: LatentSize, references: int) -> BenchmarkLoop:
        where = folder / kind.kind
        return BenchmarkLoop(where, preset.transformer, kind, video, compute, runs + 3, references=references)

    kinds = {"step": build_loop(KaleidoTask(latents="", batch=batch), preset.video, preset.references).step}
    if ratios:
        kinds["bare"] = BareTransformer(preset, compute, tokens, batch, world).step
        frames, height, width = preset.video
        longer = (frames + preset.references, height, width)  # as many tokens
        kinds["plain"] = build_loop(VideoTask(latents="", batch=batch), longer, 0).step
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = time_interleaved(kinds, runs, world.device)
    seconds = times["step"].median
    needed = batch * flops.count_training(shape, tokens)
    peak = resolve_peak_flops(world.device, None) or _measure_matmul_peak(preset.precision, world.device)
    found: dict[str, Any] = {
        "compute": compute.model_dump(mode="json"),
        "samples": batch,
        "tokens": batch * tokens,
        "step_seconds": seconds,
        "tokens_per_second": batch * tokens / seconds,
        "tflops": needed / seconds / 1e12,
        "mfu": needed / seconds / peak,
        "peak_tflops": peak / 1e12,
        "data_wait": times["step"].waiting,
    }
    if world.device.type == "cuda":
        found["peak_memory_gib"] = torch.cuda.max_memory_allocated() / (1 << 30)
    if ratios:
        found["ratio_to_bare"] = asdict(compare_pairs(times["bare"], times["step"]))
        found["ratio_to_plain_video"] = asdict(compare_pairs(times["plain"], times["step"]))
        found["bare_seconds"], found["plain_seconds"] = times["bare"].median, times["plain"].median
    return found


class BareTransformer:
    """Run only forward and backward of the transformer, sample by sample, with the same precision."""

    def __init__(
        self, preset: TrainPreset, compute: ComputeConfig, tokens: int, batch: int, world: Any
    ) -> None:
        from training.models.wan import WanFamily

        self.dtype = DTYPES[compute.precision]
        self.model = activations.build_stock_model(preset.transformer, dtype=self.dtype, device=world.device)
        call = activations.make_inputs(self.model, tokens, 1, self.dtype, world.device)
        if compute.attention:
            self.model.set_attention_backend(compute.attention)
        activations.apply_recomputation(self.model, compute.checkpointing)
        for block in WanFamily().list_blocks(self.model) if compute.compile else ():
            block.forward = torch.compile(block.forward)
        self.call, self.batch = call, batch

    def step(self) -> float:
        """Compute the gradients of one step; return the seconds of waiting, which are 0."""
        for _ in range(self.batch):
            loss = self.model(**self.call, return_dict=False)[0].float().square().mean()
            loss.backward()
        self.model.zero_grad()
        return 0.0


def _measure_matmul_peak(precision: str, device: torch.device) -> float:
    """FLOP/s of a large matrix product: the peak of a device that is in no table."""
    dtype = DTYPES[precision]
    size = 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    now, times = get_clock(device), []
    for _ in range(8):
        began = now()
        left @ left
        times.append(now() - began)
    return 2 * size**3 / min(times)


if __name__ == "__main__":
    main()
