"""Pictures per second of the models of the profile `pretrained`, and the cost of 1,000 kept subjects.

    python -m benchmarks.models [--small] [--batches 1,4,16] [--price 2.50] [--dataset DATASET]

Speed does not depend on the values of weights: each architecture is built in its real size with random
weights, written in its real format, loaded by its real backend, and given pictures of the usual sizes. Pre-
and postprocessing count, as in a run. Batch sizes are swept; the backend halves one that does not fit the
GPU's memory, and the table marks it. On a GPU, memory and utilisation are printed, too.

`--small` runs architectures of a fraction of the size, for a machine without a GPU: it shows that the
benchmark works, and its costs are not meaningful.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from curation.model_spec import ModelSpec
from curation.models import registry
from curation.models.roles import DetectionScene, Phrase
from curation.taxonomy import Taxonomy
from reprise.errors import RepriseError

PHRASES = ("brown dog", "red car", "woman in a coat")
BOXES = 3  # per frame
# Counts of a run over the demo videos; they give the pictures per kept subject. --dataset: another run's.
DEMO = {"clips": 30, "found": 36, "kept": 21}
FRAMES = 3  # of a clip that the detector processes, `ground.frames`
PAIRS = 9  # of a clip, for flow: 5 s at two frames per second
_POLL_S = 0.2


@dataclass(frozen=True)
class PictureSize:
    """Size of the input pictures of a stage, px."""

    width: int
    height: int


@dataclass(frozen=True)
class BenchmarkCase:
    """One stage: the function that makes its checkpoint, and the call of its backend.

    `save_checkpoint` writes a checkpoint into a folder and returns the spec's checkpoint and options.
    """

    role: str
    backend: str
    architecture: str
    unit: str
    size: PictureSize
    save_checkpoint: Callable[[Path], tuple[Path, dict[str, Any]]]
    run_backend: Callable[[Any, Sequence[NDArray[np.uint8]]], Any]


@dataclass(frozen=True)
class Speed:
    """The measurements at one batch size."""

    batch: int
    ran_at: int  # smaller if memory did not suffice
    per_second: float
    cpu_ms: float  # of all threads per picture; other work on the machine disturbs it less
    memory_gb: float | None  # peak of the GPU's, allocated by PyTorch
    utilisation: float | None  # mean of nvidia-smi, 0..1


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status."""
    given = build_parser().parse_args(arguments)
    logging.getLogger().setLevel(logging.ERROR)  # backends warn of random weights, which are intended
    console = Console()
    try:
        counts = read_counts(given.dataset)
        wanted = list_cases(given.small)
        unknown = set(given.stages or ()) - {case.role for case in wanted}
        if unknown:
            roles = ", ".join(case.role for case in wanted)
            raise RepriseError(f"no stage {sorted(unknown)[0]}; stages are {roles}")
        found = {
            case.role: measure_case(case, given.batches, given.seconds, given.device, given.dtype)
            for case in wanted
            if not given.stages or case.role in given.stages
        }
    except RepriseError as error:
        print(f"error {error}", file=sys.stderr)
        return 2
    best = {role: max(speeds, key=lambda each: each.per_second) for role, speeds in found.items()}
    spent = compute_seconds_per_kept(best, counts)
    console.print(build_table(wanted, found))
    total = sum(spent.values())
    price = compute_cost(total, given.price)
    console.print(
        f"1,000 kept subjects: {1000 * total / 3600:.2f} hours of this device; at {given.price:g} an hour, "
        f"{price:.2f} ({', '.join(f'{role} {value / total:.0%}' for role, value in spent.items())})"
    )
    result = {
        "small": given.small,
        "machine": {**describe_machine(), **describe_gpu()},
        "speeds": {role: [asdict(each) for each in speeds] for role, speeds in found.items()},
        "pictures_per_kept": compute_pictures_per_kept(counts),
        "hours_per_1000_kept": round(1000 * total / 3600, 4),
        "price_per_hour": given.price,
        "cost_per_1000_kept": round(price, 4),
    }
    print(json.dumps(result))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__.split("\n")[0])
    found.add_argument("--small", action="store_true", help="a fraction of the size, for a CPU")
    found.add_argument("--stages", type=_parse_words, help="only these, with commas between")
    found.add_argument("--batches", type=_parse_numbers, default=[1, 2, 4, 8, 16], help="sizes to sweep")
    found.add_argument("--seconds", type=float, default=3.0, help="to measure each batch size for")
    found.add_argument("--price", type=float, default=2.5, help="of an hour of this device")
    found.add_argument("--dataset", help="a finished dataset whose keep rate counts; else the demo's")
    found.add_argument("--device", default="auto", help="as in a model spec")
    found.add_argument("--dtype", default="auto", help="as in a model spec")
    return found


def _parse_words(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _parse_numbers(text: str) -> list[int]:
    numbers = [int(each) for each in _parse_words(text)]
    if not numbers or min(numbers) < 1:
        raise ValueError(text)
    return numbers


# ---- measuring -------------------------------------------------------------------------------------------


def measure_case(
    case: BenchmarkCase, batches: Sequence[int], seconds: float, device: str, dtype: str
) -> list[Speed]:
    """Measure every batch size of one stage, on one loaded model."""
    from curation.models.pretrained.device import BatchRunner

    print(f"{case.role}: {case.architecture}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
        path, options = case.save_checkpoint(Path(folder))
        spec = ModelSpec(
            backend=case.backend, checkpoint=str(path), device=device, dtype=dtype, options=options
        )
        backend = registry.build_backend(case.role, spec)
    found = []
    for batch in batches:
        backend._batches = BatchRunner(batch)
        found.append(
            measure_batch(
                lambda images: case.run_backend(backend, images), case.size, batch, seconds, backend
            )
        )
    return found


def measure_batch(
    run: Callable[[Sequence[NDArray[np.uint8]]], Any],
    size: PictureSize,
    batch: int,
    seconds: float,
    backend: Any,
) -> Speed:
    """Measure one batch size: one run to warm up, then runs for at least `seconds`."""
    images = make_pictures(size, batch)
    run(images)
    reset_peak_memory()
    done, started, busy = 0, time.perf_counter(), time.process_time()
    with GpuUtilisation() as used:
        while done == 0 or time.perf_counter() - started < seconds:
            run(images)
            done += batch
        spent, busy = time.perf_counter() - started, time.process_time() - busy
    ran_at = min(batch, backend._batches.size)
    return Speed(batch, ran_at, done / spent, 1000 * busy / done, read_peak_memory(), used.mean)


def make_pictures(size: PictureSize, count: int) -> list[NDArray[np.uint8]]:
    """Make (H, W, 3) pictures of coarse noise."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (count, size.height // 16 + 1, size.width // 16 + 1, 3), np.uint8)
    return [
        np.ascontiguousarray(each.repeat(16, 0).repeat(16, 1)[: size.height, : size.width]) for each in coarse
    ]


class GpuUtilisation:
    """Mean utilisation of the first GPU while the block runs; None without nvidia-smi or samples."""

    _QUERY = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0")

    def __init__(self) -> None:
        self._tool = shutil.which("nvidia-smi")
        self._samples: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch_gpu, daemon=True)

    def __enter__(self) -> GpuUtilisation:
        if self._tool:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch_gpu(self) -> None:
        while not self._stopped.wait(_POLL_S):
            result = subprocess.run(
                [str(self._tool), *self._QUERY], capture_output=True, text=True, check=False
            )
            if result.returncode != 0 or not result.stdout.strip().isdigit():
                return
            self._samples.append(float(result.stdout) / 100)

    @property
    def mean(self) -> float | None:
        """Mean utilisation, 0..1."""
        return round(float(np.mean(self._samples)), 3) if self._samples else None


def reset_peak_memory() -> None:
    """Reset PyTorch's peak of GPU memory."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def read_peak_memory() -> float | None:
    """Return PyTorch's peak of GPU memory (GB); None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return round(float(torch.cuda.max_memory_allocated()) / 1e9, 2)


def describe_gpu() -> dict[str, Any]:
    """Describe the GPU and the version of PyTorch."""
    import torch

    return {
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }


# ---- cost ---------------------------------------------------------------------------------------


def read_counts(dataset: str | None) -> dict[str, int]:
    """Read the numbers of clips, found and kept subjects of a finished dataset, or of the demo.

    Raises:
        RepriseError: there is no finished dataset, or it kept nothing.
    """
    if dataset is None:
        return DEMO
    file = Path(dataset) / "manifest.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        counts = {
            "clips": int(found["clips"]["in"]),
            "found": int(found["subjects"]["found"]),
            "kept": int(found["subjects"]["kept"]),
        }
    except OSError as error:
        raise RepriseError(f"{file}: {error.strerror}: a finished dataset is needed") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RepriseError(f"{file} is no manifest of a dataset") from error
    if counts["kept"] < 1:
        raise RepriseError(f"{dataset} kept no subject, so there is no cost of one")
    return counts


def compute_pictures_per_kept(counts: dict[str, int]) -> dict[str, float]:
    """Compute the pictures (for flow: pairs) that each stage processes per kept subject."""
    clips, found = counts["clips"] / counts["kept"], counts["found"] / counts["kept"]
    return {"detector": FRAMES * clips, "segmenter": found, "scorer": found, "flow": PAIRS * clips}


def compute_seconds_per_kept(best: dict[str, Speed], counts: dict[str, int]) -> dict[str, float]:
    """Compute the device seconds of each measured stage per kept subject, at its best batch size."""
    needed = compute_pictures_per_kept(counts)
    return {role: needed[role] / speed.per_second for role, speed in best.items()}


def compute_cost(seconds: float, price_per_hour: float) -> float:
    """Compute the cost of 1,000 kept subjects, in the unit of the price."""
    return 1000 * seconds / 3600 * price_per_hour


def build_table(wanted: Sequence[BenchmarkCase], found: dict[str, list[Speed]]) -> Table:
    """Build the table of all measured speeds."""
    shown = Table(
        "stage", "architecture", "batch", "per second", "CPU each", "GPU memory", "GPU used", box=None
    )
    for case in wanted:
        for place, speed in enumerate(found.get(case.role, ())):
            halved = f" (ran at {speed.ran_at})" if speed.ran_at < speed.batch else ""
            shown.add_row(
                "" if place else case.role,
                "" if place else case.architecture,
                f"{speed.batch}{halved}",
                f"{speed.per_second:.3g} {case.unit}",
                f"{speed.cpu_ms:.0f} ms",
                "-" if speed.memory_gb is None else f"{speed.memory_gb:g} GB",
                "-" if speed.utilisation is None else f"{speed.utilisation:.0%}",
            )
    return shown


# ---- the architectures -----------------------------------------------------------------------------------


def list_cases(small: bool) -> list[BenchmarkCase]:
    """List Grounding DINO, SAM, CLIP and RAFT, in their real sizes or small."""
    frame = PictureSize(320, 180) if small else PictureSize(1280, 720)
    crop = PictureSize(160, 160) if small else PictureSize(480, 480)
    flow = PictureSize(192, 136) if small else PictureSize(720, 405)
    categories = [f"a photo of a {name}" for name in Taxonomy.load().categories][: 16 if small else None]
    return [
        BenchmarkCase(
            "detector", "grounding-dino-hf", "Grounding DINO small" if small else "Grounding DINO Swin-T",
            "frames", frame, save_small_dino if small else save_dino, _run_detector,
        ),
        BenchmarkCase(
            "segmenter", "sam-original", "SAM small" if small else "SAM ViT-H",
            "frames", frame, save_small_sam if small else save_sam, _run_segmenter,
        ),
        BenchmarkCase(
            "scorer", "open-clip", "CLIP ViT-S/32" if small else "CLIP ViT-L/14",
            "crops", crop, save_small_clip if small else save_clip,
            lambda backend, images: backend.score(images, categories),
        ),
        BenchmarkCase(
            "flow", "raft", "RAFT-small" if small else "RAFT-large",
            "pairs", flow, save_small_raft if small else save_raft, _run_flow,
        ),
    ]  # fmt: skip


def _run_detector(backend: Any, images: Sequence[NDArray[np.uint8]]) -> Any:
    phrases = [Phrase(text, text, "", 1) for text in PHRASES]
    return backend.detect([DetectionScene(image) for image in images], [phrases] * len(images))


def _run_flow(backend: Any, images: Sequence[NDArray[np.uint8]]) -> Any:
    return backend.estimate_flow(images, [np.roll(image, 4, axis=1) for image in images])


def _run_segmenter(backend: Any, images: Sequence[NDArray[np.uint8]]) -> Any:
    height, width = images[0].shape[:2]
    boxes = [[width * n / 8, height / 4, width * (n + 2) / 8, height * 3 / 4] for n in range(1, BOXES + 1)]
    return backend.segment(images, [boxes] * len(images))


def save_dino(folder: Path) -> tuple[Path, dict[str, Any]]:
    """IDEA-Research/grounding-dino-tiny: Swin-T, BERT base, six layers each way, 900 queries."""
    swin = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
    return _save_dino_checkpoint(folder, swin, {}, {}, {"shortest_edge": 800, "longest_edge": 1333})


def save_small_dino(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A small Grounding DINO."""
    swin = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
    bert = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    layers = {
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 256,
        "decoder_ffn_dim": 256,
        "num_queries": 100,
    }
    return _save_dino_checkpoint(folder, swin, bert, layers, {"shortest_edge": 200, "longest_edge": 400})


def _save_dino_checkpoint(
    folder: Path, swin: dict[str, Any], bert: dict[str, Any], layers: dict[str, Any], size: dict[str, int]
) -> tuple[Path, dict[str, Any]]:
    import transformers
    from transformers.utils import logging as library

    library.disable_progress_bar()
    # The words do not matter, but special ones must have the ids of bert-base-uncased.
    words = [f"[unused{index}]" for index in range(30522)]
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    for index, word in (special | dict(enumerate(" ".join(PHRASES).split(), start=2000))).items():
        words[index] = word
    tokenizer = transformers.BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    model = transformers.GroundingDinoForObjectDetection(
        transformers.GroundingDinoConfig(
            backbone_config=transformers.SwinConfig(**swin, out_indices=[2, 3, 4]),
            text_config=transformers.BertConfig(**bert),
            **layers,
        )
    )
    model.save_pretrained(folder)
    images = transformers.GroundingDinoImageProcessor(size=size)
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder, {}


def save_sam(folder: Path) -> tuple[Path, dict[str, Any]]:
    """SAM ViT-H."""
    import segment_anything
    import torch

    torch.save(segment_anything.sam_model_registry["vit_h"]().state_dict(), folder / "sam_vit_h.pth")
    return folder / "sam_vit_h.pth", {"model_type": "vit_h"}


def save_small_sam(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A small SAM."""
    import torch

    from curation.models.pretrained.sam_original import build_from_sizes, read_model_sizes

    sizes = {
        "image_size": 256, "encoder_width": 96, "encoder_depth": 4, "encoder_heads": 4, "encoder_global": [3],
        "encoder_window": 8, "encoder_mlp_ratio": 4, "width": 64, "decoder_heads": 4, "decoder_mlp": 128,
        "iou_width": 64,
    }  # fmt: skip
    (folder / "sam.json").write_text(json.dumps(sizes), encoding="utf-8")
    torch.save(build_from_sizes(read_model_sizes(folder / "sam.json")).state_dict(), folder / "sam.pth")
    return folder / "sam.pth", {}


def save_clip(folder: Path, name: str = "ViT-L-14") -> tuple[Path, dict[str, Any]]:
    """A CLIP model of open_clip."""
    import open_clip
    import torch

    torch.save(open_clip.create_model(name).state_dict(), folder / "clip.pt")
    return folder / "clip.pt", {"model": name}


def save_small_clip(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A small CLIP."""
    return save_clip(folder, "ViT-S-32")


def save_raft(folder: Path, name: str = "raft_large") -> tuple[Path, dict[str, Any]]:
    """A RAFT model of torchvision."""
    import torch
    from torchvision.models import optical_flow

    torch.save(getattr(optical_flow, name)(weights=None).state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth", {}


def save_small_raft(folder: Path) -> tuple[Path, dict[str, Any]]:
    """RAFT-small with two updates."""
    return save_raft(folder, "raft_small")[0], {"updates": 2}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
