"""A list of videos to generate: reading requests, skipping those already done, generating each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from reprise.errors import RepriseError
from training.config import PositionsConfig
from training.generate.media import convert_to_uint8, write_video
from training.models.build import find_family
from training.models.components import read_config
from training.models.generation_defaults import GenerationDefaults, read_defaults
from training.models.pictures import open_picture
from training.models.video_size import check_size, get_token_grid
from training.precision import DTYPES

SEPARATOR = "@@"  # of the released script's prompt files


@dataclass(frozen=True)
class GenerationSettings:
    """What all videos of a call share; written beside each video."""

    model: str
    revision: str | None = None
    height: int | None = None  # px; None for any of the size: as trained, else as the model's release
    width: int | None = None  # px
    frames: int | None = None  # 4n + 1
    fps: float | None = None  # of the file; the model knows none
    steps: int | None = None  # as trained, else 50
    guidance: float | None = None  # scale of the text; as trained, else 6
    reference_guidance: float | None = None  # scale of the references, apart from the text
    dynamic_guidance: bool = False
    flow_shift: float = 7.0
    negative_prompt: str = ""
    pad_references: bool = True
    lora: str | None = None  # file or folder
    lora_alpha: float | None = None
    positions: PositionsConfig | None = None  # None: those of the model's folder
    dtype: str = "fp32"  # of transformer and text encoder; the VAE is always float32


@dataclass(frozen=True)
class GenerationRequest:
    """One video to make."""

    name: str  # for messages
    prompt: str
    references: tuple[str, ...]
    seed: int
    target: Path  # .mp4


def read_requests(
    file: Path, folder: Path, seeds: Sequence[int], whole_line: bool = False
) -> tuple[list[GenerationRequest], list[str]]:
    """Read lines `prompt@@a.png@@b.png` of a file; empty lines are skipped.

    Args:
        file: the lines. Pictures are looked for beside it, then in the working directory.
        folder: of the videos, <folder>/0001.mp4, ..., numbered by line.
        seeds: with several, each line gives as many videos, whose names end in -seed<n>.
        whole_line: the text encoder gets the whole line with its @@ parts, as in the released script;
            default: only the prompt.

    Returns:
        The requests, and one message for each bad line.

    Raises:
        RepriseError: the file cannot be read, or has no line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RepriseError(f"{file} cannot be read as a text file ({type(error).__name__})") from error
    requests: list[GenerationRequest] = []
    bad: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prompt, *named = (part.strip() for part in line.split(SEPARATOR))
        try:
            pictures = tuple(str(_resolve_picture(file, name)) for name in named if name)
            _check_request(prompt, pictures)
        except RepriseError as error:
            bad.append(f"{file.name}, line {number}: {error}")
            continue
        for seed in seeds:
            name = f"{number:04d}.mp4" if len(seeds) == 1 else f"{number:04d}-seed{seed}.mp4"
            text = line.strip() if whole_line else prompt
            requests.append(
                GenerationRequest(f"{file.name}, line {number}", text, pictures, seed, folder / name)
            )
    if not requests and not bad:
        raise RepriseError(f"{file} has no line; one is prompt{SEPARATOR}a.png{SEPARATOR}b.png")
    return requests, bad


def make_requests(
    prompt: str, references: Sequence[str], target: Path, seeds: Sequence[int]
) -> list[GenerationRequest]:
    """Make the requests of one prompt: `target`, or with several seeds <target>-seed<n>.mp4.

    Raises:
        RepriseError: the prompt is empty, a picture cannot be read, or `target` is no .mp4.
    """
    _check_request(prompt, references)
    if target.suffix.lower() != ".mp4":
        raise RepriseError(f"{target} must end in .mp4")
    return [
        GenerationRequest(
            target.name,
            prompt,
            tuple(references),
            seed,
            target if len(seeds) == 1 else target.with_stem(f"{target.stem}-seed{seed}"),
        )
        for seed in seeds
    ]


def with_model_defaults(settings: GenerationSettings) -> GenerationSettings:
    """Fill in what the settings leave open with the values of `find_defaults`; only configs are read.

    Raises:
        RepriseError: the model is missing, of an unknown family, or cannot make that size.
    """
    transformer = read_config(settings.model, settings.revision, "transformer")
    vae = read_config(settings.model, settings.revision, "vae")
    defaults = find_defaults(settings)
    values = {name: value for name, value in defaults.model_dump().items() if getattr(settings, name) is None}
    whole = replace(settings, **values)
    check_size((whole.height, whole.width, whole.frames), get_token_grid(transformer, vae))  # type: ignore[arg-type]
    return whole


def find_defaults(settings: GenerationSettings) -> GenerationDefaults:
    """Find what the LoRA, else the model, was trained for; without a record it is the release's size.

    Raises:
        RepriseError: the model is missing or of an unknown family, or a record is damaged.
    """
    recorded = (read_defaults(settings.lora) if settings.lora else None) or read_defaults(settings.model)
    if recorded is not None:
        return recorded
    transformer = read_config(settings.model, settings.revision, "transformer")
    height, width, frames, fps = find_family(transformer, settings.model).default_size
    return GenerationDefaults(height=height, width=width, frames=frames, fps=fps)


def describe_size_distance(settings: GenerationSettings) -> str | None:
    """Describe in one line that whole settings are far from the model's size; None: they are near."""
    size = settings.height, settings.width, settings.frames
    return find_defaults(settings).describe_distance(*size)  # type: ignore[arg-type]


def load_pipeline(
    settings: GenerationSettings, device: str | None = None, offload: bool = False, tile: bool = False
) -> Any:
    """Load the pipeline onto its device.

    Args:
        settings: model, LoRA, positions and dtype.
        device: None: cuda if there is one, else cpu.
        offload: only the part that computes is on the GPU.
        tile: the VAE works on tiles of the frames.

    Raises:
        RepriseError: the model cannot be loaded, or `offload` without a GPU.
    """
    from training.generate.pipeline import ReferenceToVideoPipeline  # importing diffusers takes seconds

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if offload and device == "cpu":
        raise RepriseError("--offload needs a GPU: without one, everything is in main memory already")
    dtype = DTYPES[settings.dtype]
    options: dict[str, Any] = {"dtype": {"default": dtype, "vae": torch.float32}}
    if settings.positions is not None:
        options["positions"] = settings.positions
    pipeline = ReferenceToVideoPipeline.from_pretrained(settings.model, revision=settings.revision, **options)
    if settings.lora is not None:
        pipeline.add_lora(settings.lora, settings.lora_alpha)
    if tile:
        pipeline.vae.enable_tiling()
    if offload:
        pipeline.enable_model_cpu_offload(device=device)
        return pipeline
    return pipeline.to(device)


def generate_video(
    pipeline: Any,
    request: GenerationRequest,
    settings: GenerationSettings,
    on_step: Callable[[], None] | None = None,
) -> None:
    """Generate one video and write it, and beside it a .json with its request and settings.

    Args:
        pipeline: as `load_pipeline` returns it.
        request: the video.
        settings: what all videos share.
        on_step: called after each of the `settings.steps` steps.

    Raises:
        RepriseError: a picture cannot be read, or the device has too little memory. The next request can
            still succeed.
    """
    try:
        frames = pipeline(
            request.prompt,
            [open_picture(path) for path in request.references],
            height=settings.height,
            width=settings.width,
            num_frames=settings.frames,
            num_inference_steps=settings.steps or 50,
            guidance_scale=6.0 if settings.guidance is None else settings.guidance,
            reference_guidance_scale=settings.reference_guidance,
            dynamic_guidance=settings.dynamic_guidance,
            flow_shift=settings.flow_shift,
            negative_prompt=settings.negative_prompt,
            pad_references=settings.pad_references,
            seed=request.seed,
            callback=(lambda *_: on_step()) if on_step is not None else None,
        ).frames[0]
    except torch.OutOfMemoryError as error:
        raise RepriseError(
            f"{settings.frames} frames of {settings.height}x{settings.width} do not fit "
            "into the memory of the device; try --offload, --tile, --dtype bf16 or a smaller size"
        ) from error
    write_video(request.target, convert_to_uint8(frames), settings.fps or 16.0)
    _get_record_path(request).write_text(
        json.dumps(_build_record(request, settings), indent=2) + "\n", encoding="utf-8"
    )


def is_generated(request: GenerationRequest, settings: GenerationSettings) -> bool:
    """Whether an earlier call made this video: the .json beside it has the same request and settings."""
    try:
        found = json.loads(_get_record_path(request).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return request.target.is_file() and found == _build_record(request, settings)


def _build_record(request: GenerationRequest, settings: GenerationSettings) -> Mapping[str, Any]:
    shared = asdict(settings)
    shared["positions"] = settings.positions.model_dump() if settings.positions is not None else None
    request_fields = {"prompt": request.prompt, "references": list(request.references), "seed": request.seed}
    return {**request_fields, **shared}


def _get_record_path(request: GenerationRequest) -> Path:
    return request.target.with_suffix(".json")


def _resolve_picture(file: Path, name: str) -> Path:
    here = file.parent / name  # an absolute name stays as it is
    return here if here.is_file() or not Path(name).is_file() else Path(name)


def _check_request(prompt: str, references: Sequence[str]) -> None:
    if not prompt.strip():
        raise RepriseError("the prompt is empty")
    if not references:
        raise RepriseError("no references; give at least one picture of a subject")
    for path in references:
        open_picture(path)
