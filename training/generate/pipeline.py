"""Pictures of subjects and a prompt -> a video: a pipeline used like those of diffusers.

pipeline = ReferenceToVideoPipeline.from_pretrained("kaleido-14b", dtype=torch.bfloat16).to("cuda")
video = pipeline("a dog and a cat on a beach", references=["dog.png", "cat.png"], seed=0).frames[0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    ModelMixin,
    SchedulerMixin,
    WanTransformer3DModel,
)
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel, UMT5EncoderModel

from reprise.errors import RepriseError
from training.config import PositionsConfig
from training.generate.solvers import compute_dynamic_scale, make_guided_velocity, run_solver
from training.lora.adapters import load_lora
from training.lora.files import read_lora_file
from training.models import pictures, subject_token
from training.models.build import find_family, make_family
from training.models.components import INDEX_FILE, find_vae_class, read_config
from training.models.family import Conditioning, Family
from training.models.pictures import PictureSource, open_picture
from training.models.vae import decode_latents, encode_picture
from training.models.video_size import check_size, get_token_grid


@dataclass
class ReferenceToVideoOutput(BaseOutput):
    """The generated videos."""

    frames: Any  # by `output_type`: (B, T, H, W, 3) array, (B, T, 3, H, W) tensor, or lists of pictures


class ReferenceToVideoPipeline(DiffusionPipeline):
    """References in, video out, on the stock parts of a text-to-video pipeline of diffusers.

    Wan 2.1 (Kaleido) and Wan 2.2 TI2V: flow matching by Euler steps. CogVideoX 2B and 5B (proxy replay):
    v-prediction by DDIM, with the settings of the folder's scheduler.

    The transformer is changed in place (its rotary embedding); afterwards only `family.predict` can call it.

    Args:
        positions: where references lie (PositionsConfig, or a dict of its fields), as the transformer was
            trained. `save_pretrained` keeps it in model_index.json.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        tokenizer: AutoTokenizer,
        text_encoder: UMT5EncoderModel | T5EncoderModel,
        vae: ModelMixin,  # AutoencoderKLWan, AutoencoderKLCogVideoX, or what `register_vae` knows
        scheduler: SchedulerMixin,
        transformer: WanTransformer3DModel | CogVideoXTransformer3DModel,
        positions: PositionsConfig | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            scheduler=scheduler,
            transformer=transformer,
        )
        self.positions = _parse_positions(positions)
        self.register_to_config(positions=self.positions.model_dump())
        settings = {**transformer.config, "_class_name": type(transformer).__name__}
        self.family: Family = make_family(settings, vae.config, "the pipeline")
        channels = transformer.config
        self.family.prepare_model(
            transformer, self.positions, channels.in_channels // channels.out_channels - 1
        )
        self.video_processor = VideoProcessor(vae_scale_factor=self.family.spatial_scale)

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> ReferenceToVideoPipeline:
        """Load a diffusers pipeline folder or hub id.

        Args:
            path: the folder or id.
            options: those of diffusers (`dtype`, `revision`, ...); `positions` overrides the folder's.

        Raises:
            RepriseError: a part is missing or of another model.
        """
        revision = options.get("revision")
        if "transformer" not in options:
            find_family(read_config(str(path), revision, "transformer"), path)
        folder = Path(path)
        if folder.is_dir() and not (folder / INDEX_FILE).is_file():
            raise RepriseError(
                f"{folder} has no {INDEX_FILE}: a whole pipeline folder is needed, not only a transformer "
                "(`reprise convert kaleido IN OUT --base WAN` makes one)"
            )
        if (folder / "transformer_2").is_dir():
            raise RepriseError(f"{folder} has two transformers (Wan 2.2 A14B); models with one are supported")
        # Import the VAE's class: diffusers finds a class that is not its own only once it is imported.
        find_vae_class(read_config(str(path), revision, "vae").get("_class_name", ""))
        try:
            pipeline: ReferenceToVideoPipeline = super().from_pretrained(path, **options)
        except (OSError, ValueError, AttributeError) as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise RepriseError(f"{path} could not be loaded as a pipeline: {line}") from error
        if (folder / subject_token.SUBJECT_TOKEN_FILE).is_file():
            subject_token.load_subject_token(pipeline.transformer, folder)
        return pipeline

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(
        self,
        prompt: str | Sequence[str],
        references: Sequence[Any] = (),
        *,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 6.0,
        reference_guidance_scale: float | None = None,
        dynamic_guidance: bool = False,
        flow_shift: float = 7.0,
        negative_prompt: str = "",
        pad_references: bool = True,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        seed: int | None = None,
        latents: Tensor | None = None,
        output_type: str = "np",
        callback: Callable[[ReferenceToVideoPipeline, int, int, dict[str, Tensor]], Any] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Generate one video per prompt.

        Args:
            prompt: one, or several.
            references: pictures (PIL or paths), in the order in which the prompt names them; for several
                prompts either one such list for all, or a list of lists.
            height: px, a multiple of 16 (Wan 2.2: 32). Default: 480.
            width: px, as height. Default: 832, CogVideoX 720.
            num_frames: 4n + 1. Default: 81, CogVideoX 49.
            num_inference_steps: steps of the solver.
            guidance_scale: of the text.
            reference_guidance_scale: of the references, apart from the text; None: references are never left
                out (as released).
            dynamic_guidance: the scale of the text grows from 1 to 1 + guidance_scale over the steps
                (CogVideoX's option, off as released).
            flow_shift: of the sampling grid, 7 at any resolution (as released); CogVideoX ignores it.
            negative_prompt: in place of the empty prompt of guidance.
            pad_references: fit and centre on white in the video's size (as released); False: only fit, which
                gives fewer tokens, for models trained so.
            generator: one for all, or one per prompt, instead of `seed`.
            seed: noise of prompt i is drawn on the CPU from seed + i, the same for every device.
            latents: noise (prompts, C, T, h, w), instead of `seed` and `generator`.
            output_type: "np" (B, T, H, W, 3) in 0..1, "pt", "pil" or "latent".
            callback: called with (pipeline, step, timestep, {"latents": ...}) after each step, one prompt
                after the other; "latents" of a dict that it returns replace the latents.
            return_dict: False: return a tuple.

        Raises:
            RepriseError: the model cannot make this size, or a picture is missing or cannot be read.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        default = self.family.default_size
        height, width = height or default.height, width or default.width
        num_frames = num_frames or default.frames
        check_size((height, width, num_frames), get_token_grid(self.transformer.config, self.vae.config))
        given = [
            [open_picture(picture) for picture in each] for each in _group_by_prompt(references, len(prompts))
        ]
        noise = self._make_noise(len(prompts), (height, width, num_frames), generator, seed, latents)
        empty = self._encode_prompts([negative_prompt])
        texts = self._encode_prompts(prompts)
        done = []
        with self.progress_bar(total=num_inference_steps * len(prompts)) as bar:
            steps_done = 0

            def on_step(step: int, timestep: float, now: Tensor) -> Tensor:
                nonlocal steps_done
                steps_done = (step + 1) % num_inference_steps  # the next prompt starts at 0 again
                bar.update()
                if callback is not None:
                    changed = callback(self, step, round(timestep), {"latents": now})
                    now = changed.get("latents", now) if isinstance(changed, dict) else now
                return now

            def get_text_scale() -> float:
                return compute_dynamic_scale(guidance_scale, steps_done / num_inference_steps)

            for i, images in enumerate(given):
                pixels = [self.prepare_reference(image, height, width, pad_references) for image in images]
                clean = tuple(self._encode_reference(each, seed or 0) for each in pixels)
                velocity = make_guided_velocity(
                    self.family,
                    self.transformer,
                    Conditioning(texts[i : i + 1], clean, marked=bool(clean)),
                    empty,
                    self.positions,
                    text=get_text_scale if dynamic_guidance else guidance_scale,
                    reference=reference_guidance_scale,
                    dtype=self.transformer.dtype,
                )
                start = noise[i : i + 1].to(self._execution_device)
                done.append(
                    run_solver(
                        self.family.objective,
                        velocity,
                        start,
                        num_inference_steps,
                        flow_shift=flow_shift,
                        scheduler=self._make_scheduler(),
                        on_step=on_step,
                    )
                )
        if output_type == "latent":
            video: Any = torch.cat(done)
        else:
            decoded = torch.cat([decode_latents(self.vae, part).float().cpu() for part in done])
            video = self.video_processor.postprocess_video(decoded, output_type=output_type)
        self.maybe_free_model_hooks()
        return ReferenceToVideoOutput(frames=video) if return_dict else (video,)

    def add_lora(self, path: str | Path, alpha: float | None = None) -> None:
        """Add the LoRA of a file or folder (diffusers' or ComfyUI's keys), and the subject's token beside it.

        Args:
            path: the file or folder.
            alpha: of a file that stores none; for rank 128 the default is 64, which is that of the released
                proxy replay file.

        Raises:
            RepriseError: it is LoRA of another model, or its alpha is unknown.
        """
        file = read_lora_file(path, self.family.name)
        config = file.make_config(alpha or (64.0 if file.rank == 128 else None))
        load_lora(self.transformer, path, config, self.family.name)
        if (file.path.parent / subject_token.SUBJECT_TOKEN_FILE).is_file():
            subject_token.load_subject_token(self.transformer, file.path.parent)
        self.transformer.eval()

    def prepare_reference(self, picture: Image.Image, height: int, width: int, pad: bool = True) -> Tensor:
        """Prepare a picture for the VAE: (3, H, W) float32 in [-1, 1], of the video's size if `pad`."""
        if pad:
            return pictures.prepare_picture(picture, height, width)
        rows, columns = (self.family.spatial_scale * step for step in self.family.patch[1:])
        picture = pictures.convert_to_rgb(picture)
        w, h = pictures.get_fitted_size(picture.size, height, width)
        size = max(columns, w // columns * columns), max(rows, h // rows * rows)
        return pictures.convert_to_tensor(picture.resize(size, Image.Resampling.LANCZOS))

    def _encode_reference(self, picture: Tensor, seed: int) -> Tensor:
        """A reference's latent (1, C, 1, h, w)."""
        generator = torch.Generator().manual_seed(seed) if self.family.samples_posterior else None
        return encode_picture(self.vae, picture.to(self._execution_device), generator)

    def _make_scheduler(self) -> CogVideoXDDIMScheduler | None:
        """The scheduler that v-prediction is sampled with."""
        if self.family.objective == "flow_matching":
            return None
        return CogVideoXDDIMScheduler.from_config(self.scheduler.config)

    def _encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """(prompts, L, D). Wan: zeros after the last token, no mask, as it was trained."""
        limit = self.tokenizer.model_max_length
        length = self.family.get_text_length(self.transformer.config, limit)
        rows = self.family.embed_captions(
            prompts, self.text_encoder, self.tokenizer, length, self._execution_device
        )
        filled = rows[0].new_zeros(len(rows), length, rows[0].shape[-1])
        for row, text in zip(filled, rows, strict=True):
            row[: len(text)] = text
        return filled.to(self._execution_device, self.transformer.dtype)

    def _make_noise(
        self,
        count: int,
        size: tuple[int, int, int],
        generator: torch.Generator | Sequence[torch.Generator] | None,
        seed: int | None,
        latents: Tensor | None,
    ) -> Tensor:
        """(count, C, T, h, w) float32."""
        height, width, num_frames = size
        shape = (
            count,
            self.transformer.config.out_channels,
            (num_frames - 1) // self.family.temporal_scale + 1,
            height // self.family.spatial_scale,
            width // self.family.spatial_scale,
        )
        if latents is not None:
            if tuple(latents.shape) != shape:
                raise RepriseError(f"latents are {tuple(latents.shape)}; {shape} are needed")
            return latents.float()
        if generator is None and seed is not None:
            generator = [torch.Generator().manual_seed(seed + i) for i in range(count)]
        if isinstance(generator, Sequence) and len(generator) != count:
            raise RepriseError(f"{len(generator)} generators for {count} prompts")
        return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)


def _parse_positions(given: PositionsConfig | dict[str, Any] | None) -> PositionsConfig:
    if isinstance(given, PositionsConfig):
        return given
    try:
        return PositionsConfig(**(given or {}))
    except (ValidationError, TypeError) as error:
        raise RepriseError(f"the pipeline's positions are not valid: {given}") from error


def _group_by_prompt(references: Sequence[Any], prompts: int) -> list[list[PictureSource]]:
    """Pictures, as `__call__` takes them -> the pictures of each prompt."""
    if isinstance(references, Image.Image | str | Path):
        references = [references]
    nested = [isinstance(each, Sequence) and not isinstance(each, str) for each in references]
    if not any(nested):
        return [list(references)] * prompts
    if not all(nested) or len(references) != prompts:
        raise RepriseError(
            f"references of {len(references)} prompts for {prompts}; give one list for each prompt"
        )
    return [list(each) for each in references]
