"""Shared code of the FLUX backends: pipelines in diffusers layout, and canvases for pictures of any size.

FLUX paints pictures whose sides are multiples of 16 px and whose area is about one megapixel. A picture is
scaled without changing its shape, placed on the nearest possible canvas, and scaled back to its exact size
afterwards.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from curation.imaging.codec import RGB, BoolMask
from curation.model_spec import ModelSpec
from curation.models.checkpoints import Checkpoint, resolve_checkpoint
from curation.models.pretrained.device import BatchRunner, ComputeTarget, choose_target
from curation.models.pretrained.loading import explain_loading_errors, has_tokenizer, read_options
from reprise.errors import RepriseError

OFFLOAD_MODES = ("none", "model", "sequential")
_STEPS_PER_SIDE = (
    16  # canvases come in this many steps up to `side`, so that pictures of like shape share a batch
)
_WEIGHT_SUFFIXES = (".safetensors", ".bin")


@dataclass(frozen=True)
class Canvas:
    """The canvas of a picture. `size`: (height, width), px; `content`: the picture's part of it, top left."""

    size: tuple[int, int]
    content: tuple[int, int]


def choose_canvas(height: int, width: int, side: int, multiple: int) -> Canvas:
    """Choose the canvas for a picture.

    Args:
        height: of the picture, px.
        width: of the picture, px.
        side: square root of the area to paint, px; 0: as large as the picture.
        multiple: both sides of the canvas are multiples of it, px.
    """
    if side == 0:
        return Canvas((_round_up(height, multiple), _round_up(width, multiple)), (height, width))
    step = multiple * max(1, side // (_STEPS_PER_SIDE * multiple))
    scale = side / float(np.sqrt(height * width))
    tall = max(step, round(height * scale / step) * step)
    wide = max(step, round(width * scale / step) * step)
    fit = min(tall / height, wide / width)
    return Canvas((tall, wide), (_round_within(height * fit, tall), _round_within(width * fit, wide)))


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _round_within(length: float, most: int) -> int:
    return min(most, max(1, round(length)))


def place_on_canvas(image: RGB, canvas: Canvas) -> RGB:
    """Place a picture on its canvas; its border is repeated in the rest."""
    scaled = _resize_image(image, canvas.content)
    below, right = canvas.size[0] - canvas.content[0], canvas.size[1] - canvas.content[1]
    return cast(RGB, cv2.copyMakeBorder(scaled, 0, below, 0, right, cv2.BORDER_REPLICATE))


def place_mask(mask: BoolMask, canvas: Canvas) -> NDArray[np.uint8]:
    """Place a mask on the canvas: 255 where a pixel is masked, also in part; the rest is not masked."""
    laid = np.zeros(canvas.size, np.uint8)
    scaled = _resize_image(mask.astype(np.uint8) * 255, canvas.content) > 0
    laid[: canvas.content[0], : canvas.content[1]] = scaled * 255
    return laid


def crop_from_canvas(painted: RGB, canvas: Canvas, height: int, width: int) -> RGB:
    """Crop the picture from its canvas and scale it to exactly height x width px."""
    content = np.ascontiguousarray(painted[: canvas.content[0], : canvas.content[1]])
    return _resize_image(content, (height, width))


def _resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    smaller = size[0] * size[1] < image.shape[0] * image.shape[1]
    # Interpolation is linear, because cubic would overshoot at the edges of masks.
    enlarge = cv2.INTER_CUBIC if image.ndim == 3 else cv2.INTER_LINEAR
    interpolation = cv2.INTER_AREA if smaller else enlarge
    return np.asarray(cv2.resize(image, size[::-1], interpolation=interpolation), np.uint8)


@dataclass(frozen=True)
class PaintJob:
    """One picture to paint, of `size` (height, width) px.

    `image`: the RGB input of the model. `mask`: (height, width), 255 where it paints; empty: everywhere.
    """

    prompt: str | None
    seed: int
    size: tuple[int, int]
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))


Painter = Callable[[Sequence[PaintJob]], list[RGB]]


def paint_jobs(jobs: Sequence[PaintJob], batches: BatchRunner, painter: Painter) -> list[RGB]:
    """Paint jobs; return pictures in their order. Jobs of one size share batches."""
    groups: dict[tuple[int, int], list[int]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault(job.size, []).append(number)
    painted: list[RGB | None] = [None] * len(jobs)
    for numbers in groups.values():
        done = batches([jobs[number] for number in numbers], painter)
        for number, picture in zip(numbers, done, strict=True):
            painted[number] = picture
    return cast(list[RGB], painted)


def inpaint_on_canvas(
    images: Sequence[RGB],
    masks: Sequence[BoolMask],
    prompts: Sequence[str | None],
    seeds: Sequence[int],
    *,
    side: int,
    multiple: int,
    batches: BatchRunner,
    painter: Painter,
) -> list[RGB]:
    """Implement roles.Inpainter.inpaint with a painter of canvases. Pixels outside the mask do not change.

    Raises:
        ValueError: a mask is not of its picture's size.
    """
    jobs, wanted = [], []
    results: list[RGB] = []
    for number, (image, mask, prompt, seed) in enumerate(zip(images, masks, prompts, seeds, strict=True)):
        if mask.shape != image.shape[:2]:
            raise ValueError(f"a mask of {mask.shape} for a picture of {image.shape[:2]}")
        results.append(image.copy())
        if mask.any():
            canvas = choose_canvas(mask.shape[0], mask.shape[1], side, multiple)
            jobs.append(
                PaintJob(prompt, seed, canvas.size, place_on_canvas(image, canvas), place_mask(mask, canvas))
            )
            wanted.append((number, canvas))
    for (number, canvas), painted in zip(wanted, paint_jobs(jobs, batches, painter), strict=True):
        mask = masks[number]
        results[number][mask] = crop_from_canvas(painted, canvas, mask.shape[0], mask.shape[1])[mask]
    return results


class FluxInpainter:
    """roles.Inpainter around an inpainting pipeline of FLUX. A subclass builds its instruction.

    All subclasses have the options steps, guidance, side, erase, tokens and offload.
    """

    name: str
    paints_around = True

    def __init__(self, spec: ModelSpec, wanted: str, accepted: Sequence[str], **defaults: Any) -> None:
        """Load the pipeline of class `wanted` from a folder in diffusers layout that is one of `accepted`.

        Raises:
            RepriseError: the folder is not here, incomplete, or of another pipeline; or an option is wrong.
        """
        self._options = read_options(spec, **defaults)
        check_options(spec, self._options)
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        self._pipeline = load_flux_pipeline(
            checkpoint, wanted, accepted, choose_target(spec), self._options["offload"]
        )
        self._batches = BatchRunner(spec.batch_size)

    def inpaint(
        self,
        images: Sequence[RGB],
        masks: Sequence[BoolMask],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[RGB]:
        """As roles.Inpainter."""
        return inpaint_on_canvas(
            images,
            masks,
            prompts,
            seeds,
            side=self._options["side"],
            multiple=2 * self._pipeline.vae_scale_factor,
            batches=self._batches,
            painter=self._paint_batch,
        )

    def build_instruction(self, prompt: str | None) -> str:
        """Build the model's instruction from a description of the new picture; None: erase."""
        return str(self._options["erase"]) if prompt is None else prompt

    def _get_extra_arguments(self, height: int, width: int) -> dict[str, Any]:
        """Return the arguments that only this pipeline has, for a canvas of height x width px."""
        return {}

    def _paint_batch(self, jobs: Sequence[PaintJob]) -> list[RGB]:
        height, width = jobs[0].size
        painted = self._pipeline(
            prompt=[self.build_instruction(job.prompt) for job in jobs],
            image=[Image.fromarray(job.image) for job in jobs],
            mask_image=[Image.fromarray(job.mask) for job in jobs],
            height=height,
            width=width,
            num_inference_steps=self._options["steps"],
            guidance_scale=self._options["guidance"],
            max_sequence_length=self._options["tokens"],
            generator=make_generators(jobs),
            output_type="np",
            **self._get_extra_arguments(height, width),
        )
        return convert_to_images(painted.images)


def make_generators(jobs: Sequence[PaintJob]) -> list[torch.Generator]:
    """Make one CPU generator per picture: a seed gives the same noise on every device and in any batch."""
    return [torch.Generator("cpu").manual_seed(job.seed) for job in jobs]


def convert_to_images(values: Any) -> list[RGB]:
    """Convert a pipeline's `output_type="np"`, (n, h, w, 3) floats, 0..1, to uint8 pictures."""
    scaled = np.nan_to_num(np.asarray(values, np.float32)) * 255
    return list(scaled.round().clip(0, 255).astype(np.uint8))


def load_flux_pipeline(
    checkpoint: Checkpoint, wanted: str, accepted: Sequence[str], target: ComputeTarget, offload: str
) -> Any:
    """Load a pipeline from a folder onto a device, without progress bars.

    Args:
        checkpoint: its folder.
        wanted: class of diffusers to load.
        target: device and dtype.
        accepted: allowed values of `_class_name` in the folder's model_index.json.
        offload: as `place_pipeline`.

    Raises:
        RepriseError: diffusers is not installed; or the folder holds another pipeline, or only part of one.
    """
    check_folder(checkpoint, accepted)
    try:
        diffusers = importlib.import_module("diffusers")
    except ImportError as error:
        raise RepriseError(f"models: {wanted} needs the package diffusers: {error}") from error
    if not hasattr(diffusers, wanted):
        raise RepriseError(f"models: the installed diffusers {diffusers.__version__} has no {wanted}")
    diffusers.utils.logging.disable_progress_bar()
    with explain_loading_errors(checkpoint, wanted):
        pipeline = getattr(diffusers, wanted).from_pretrained(
            checkpoint.path, dtype=target.dtype, local_files_only=True
        )
    pipeline.set_progress_bar_config(disable=True)
    return place_pipeline(pipeline, target, offload)


def place_pipeline(pipeline: Any, target: ComputeTarget, offload: str) -> Any:
    """Move a pipeline to its device.

    Args:
        pipeline: of diffusers.
        target: device and dtype.
        offload: "none"; "model": parts stay in main memory and move to the GPU in turn; "sequential": layers
            move one by one, which is slower and needs a few GB. On a CPU it has no effect.
    """
    if offload == "none" or target.device.type == "cpu":
        return pipeline.to(target.device)
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=target.device)
    else:
        pipeline.enable_sequential_cpu_offload(device=target.device)
    return pipeline


def check_folder(checkpoint: Checkpoint, accepted: Sequence[str]) -> None:
    """Check that a folder holds one of the accepted pipelines with all of its parts.

    Raises:
        RepriseError: it does not.
    """
    path, what = checkpoint.path, " or ".join(accepted)
    index = path / "model_index.json"
    if not index.is_file():
        raise RepriseError(
            f"{path} has no model_index.json: a folder in diffusers layout is needed, of a {what}"
        )
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))
        name = parts["_class_name"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RepriseError(f"{index} cannot be read: fetch it again") from error
    if name not in accepted:
        raise RepriseError(f"{path} is a checkpoint of {name}, not of {what}")
    for part, kind in parts.items():
        if part.startswith("_") or not isinstance(kind, list) or not all(kind):
            continue  # a setting, or a part that this pipeline does not use
        files = [file for file in (path / part).glob("*") if file.is_file()]
        heavy = any(file.name == "config.json" for file in files)
        if not files or (heavy and not any(file.suffix in _WEIGHT_SUFFIXES for file in files)):
            lacks = "no weights in" if files else "no folder"
            raise RepriseError(f"{path} is only part of a {name}: {lacks} {part}; fetch it again")
        if part.startswith("tokenizer") and not has_tokenizer(path / part):
            raise RepriseError(f"{path} is only part of a {name}: no vocabulary in {part}; fetch it again")


def check_options(spec: ModelSpec, given: dict[str, Any]) -> None:
    """Check the ranges of the options that every FLUX backend has.

    Raises:
        RepriseError: an option is out of range.
    """
    if given["steps"] < 1:
        raise RepriseError(f"models: {spec.backend} option steps must be at least 1, not {given['steps']}")
    if given["offload"] not in OFFLOAD_MODES:
        known = ", ".join(OFFLOAD_MODES)
        raise RepriseError(
            f"models: {spec.backend} option offload must be one of {known}, not {given['offload']!r}"
        )
    side = given["side"]
    if side != 0 and side < 16:
        raise RepriseError(f"models: {spec.backend} option side must be 0 or at least 16 px, not {side}")
