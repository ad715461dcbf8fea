"""Pictures of subjects and a prompt -> a video, used as one uses diffusers.

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
from training.config import LoraConfig, PositionsConfig
from training.generate.solvers import (
    Velocity,
    compute_dynamic_scale,
    make_guided_velocity,
    run_scheduler,
    solve_euler,
)
from training.lora import adapters, files
from training.models import pictures, subject_token
from training.models.cogvideox import CogVideoXFamily
from training.models.components import INDEX_FILE, find_vae_class, read_config
from training.models.family import Conditioning, Family
from training.models.pictures import PictureSource, open_picture
from training.models.text import embed_captions
from training.models.text_length import get_text_length
from training.models.vae import decode_latents, encode_picture
from training.models.video_size import DEFAULT_SIZES, check_size, get_token_grid, get_vae_scales
from training.models.wan import WanFamily
from training.schedules import make_sampling_sigmas


@dataclass
class ReferenceToVideoOutput(BaseOutput):
    frames: Any  # as `output_type` says: (B, T, H, W, 3) array, (B, T, 3, H, W) tensor, or lists of pictures


class ReferenceToVideoPipeline(DiffusionPipeline):
    """References in, video out, on the stock parts of a text-to-video pipeline of diffusers.

    Wan 2.1 (Kaleido) and Wan 2.2 TI2V: flow matching by Euler steps. CogVideoX 2B and 5B (proxy replay):
    v-prediction by DDIM, with the settings of the folder's scheduler.

    positions: where references lie (PositionsConfig, or a dict of its fields), as the transformer was
    trained; kept in model_index.json. The transformer is changed in place (its rotary embedding) and from
    then on is called through the family alone.
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
        self.family = _make_family(transformer, vae)
        channels = transformer.config
        self.family.prepare_model(
            transformer, self.positions, channels.in_channels // channels.out_channels - 1
        )
        self.video_processor = VideoProcessor(vae_scale_factor=self.family.spatial_scale)

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> ReferenceToVideoPipeline:
        """A diffusers pipeline folder or hub id; options are diffusers' (`dtype`, `revision`, ...).

        `positions` overrides what the folder says. RepriseError where a part is missing or of another model.
        """
        revision = options.get("revision")
        if "transformer" not in options:
            settings = read_config(str(path), revision, "transformer")
            if settings.get("_class_name") not in DEFAULT_SIZES:
                raise RepriseError(
                    f"{path} holds a {settings.get('_class_name')}; known are {', '.join(DEFAULT_SIZES)}"
                )
        folder = Path(path)
        if folder.is_dir() and not (folder / INDEX_FILE).is_file():
            raise RepriseError(
                f"{folder} has no {INDEX_FILE}: a whole pipeline folder is needed, not a transformer alone "
                "(`reprise convert kaleido IN OUT --base WAN` makes one)"
            )
        if (folder / "transformer_2").is_dir():
            raise RepriseError(f"{folder} has two transformers (Wan 2.2 A14B); models with one are supported")
        settings = read_config(str(path), revision, "vae")
        # Imported, that is all: diffusers takes classes of ours only once they are.
        find_vae_class(settings.get("_class_name", ""))
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

        prompt: one, or several. references: pictures (PIL or paths), in the order in which the prompt speaks
        of them; for several prompts either one such list for all, or a list of lists. height, width: px,
        multiples of 16 (Wan 2.2: 32); num_frames: 4n + 1. Defaults: 480x832x81, CogVideoX 480x720x49.
        guidance_scale: on the text. reference_guidance_scale: on the references, apart from the text; None:
        references are never left out (as released). dynamic_guidance: the scale on the text grows from 1 to
        1 + guidance_scale over the steps (CogVideoX's option, off as released).
        flow_shift: of the sampling grid, 7 at any resolution (as released); of no meaning to CogVideoX.
        pad_references: fit and centre on white in the video's size (as released); False: fitted alone, fewer
        tokens, for models trained so.
        seed: noise of prompt i is drawn on the CPU from seed + i, and is the same on every device. generator:
        one for all, or one per prompt, instead. latents: noise (prompts, C, T, h, w) instead of either.
        output_type: "np" (B, T, H, W, 3) in 0..1, "pt", "pil" or "latent". callback(pipeline, step, timestep,
        {"latents": ...}) after each step, the prompts one after the other.

        Raises:
            RepriseError: sizes that do not fit the model, a picture that is missing or is none.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        usual = DEFAULT_SIZES[type(self.transformer).__name__]
        height, width, num_frames = height or usual[0], width or usual[1], num_frames or usual[2]
        check_size((height, width, num_frames), get_token_grid(self.transformer.config, self.vae.config))
        given = _group_by_prompt(references, len(prompts))
        shown = [[open_picture(picture) for picture in some] for some in given]
        noise = self._make_noise(len(prompts), (height, width, num_frames), generator, seed, latents)
        empty = self._encode_prompts([negative_prompt])
        texts = self._encode_prompts(prompts)
        done = []
        with self.progress_bar(total=num_inference_steps * len(prompts)) as bar:
            steps_done = 0

            def on_step(step: int, timestep: float, now: Tensor) -> None:
                nonlocal steps_done
                steps_done = (step + 1) % num_inference_steps  # the next prompt starts at 0 again
                bar.update()
                if callback is not None:
                    callback(self, step, round(timestep), {"latents": now})

            def get_text_scale() -> float:
                return compute_dynamic_scale(guidance_scale, steps_done / num_inference_steps)

            for i, some in enumerate(shown):
                ready = [self.prepare_reference(one, height, width, pad_references) for one in some]
                clean = tuple(self._encode_reference(one, seed or 0) for one in ready)
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
                done.append(self._sample_latents(velocity, start, num_inference_steps, flow_shift, on_step))
        if output_type == "latent":
            video: Any = torch.cat(done)
        else:
            decoded = torch.cat([decode_latents(self.vae, part).float().cpu() for part in done])
            video = self.video_processor.postprocess_video(decoded, output_type=output_type)
        self.maybe_free_model_hooks()
        return ReferenceToVideoOutput(frames=video) if return_dict else (video,)

    def add_lora(self, path: str | Path, alpha: float | None = None) -> None:
        """Add the LoRA of a file or folder (diffusers' or ComfyUI's keys), and the subject's token beside it.

        alpha: where the file stores none; the released proxy replay file (rank 128) is for 64, which is the
        default for that rank. RepriseError where it is of another model.
        """
        file = files.read_lora_file(path, self.family.name)
        known = file.alpha or alpha or (64.0 if file.rank == 128 else None)
        if known is None:
            raise RepriseError(f"{file.path} does not say its alpha (rank {file.rank}); give it")
        config = LoraConfig(rank=file.rank, alpha=known, targets=tuple(sorted(file.modules)))
        adapters.load_lora(self.transformer, path, config, self.family.name)
        if (file.path.parent / subject_token.SUBJECT_TOKEN_FILE).is_file():
            subject_token.load_subject_token(self.transformer, file.path.parent)
        self.transformer.eval()

    def prepare_reference(self, picture: Image.Image, height: int, width: int, pad: bool = True) -> Tensor:
        """What the VAE sees of a picture: (3, H, W) float32 in [-1, 1], of the video's size where padded."""
        if pad:
            return pictures.prepare_picture(picture, height, width)
        rows, columns = (self.family.spatial_scale * step for step in self.family.patch[1:])
        picture = pictures.composite_on_white(picture)
        w, h = pictures.get_fitted_size(picture.size, height, width)
        size = max(columns, w // columns * columns), max(rows, h // rows * rows)
        return pictures.convert_to_tensor(picture.resize(size, Image.Resampling.LANCZOS))

    def _encode_reference(self, picture: Tensor, seed: int) -> Tensor:
        """A reference's latent; CogVideoX's is a sample of the posterior, as released."""
        drawn = torch.Generator().manual_seed(seed) if self.family.name == "cogvideox" else None
        return encode_picture(self.vae, picture.to(self._execution_device), drawn)

    def _sample_latents(
        self,
        velocity: Velocity,
        noise: Tensor,
        steps: int,
        flow_shift: float,
        on_step: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        """From noise (1, C, T, h, w) to latents, by the family's sampler; on_step(i, timestep, latents)."""
        if self.family.name == "cogvideox":
            scheduler = CogVideoXDDIMScheduler.from_config(self.scheduler.config)
            return run_scheduler(
                lambda latents, timestep: velocity(latents, timestep / 1000.0),
                noise,
                scheduler,
                steps,
                lambda i, latents: on_step(i, float(scheduler.timesteps[i]), latents),
            )
        sigmas = make_sampling_sigmas(steps, flow_shift).tolist()
        return solve_euler(
            velocity, noise, sigmas, lambda i, latents: on_step(i, 1000.0 * sigmas[i], latents)
        )

    def _encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """(prompts, L, D). Wan: zeros after the last token, no mask, as it was trained."""
        limit = self.tokenizer.model_max_length
        length = get_text_length(self.family.name, self.transformer.config, limit)
        rows = embed_captions(prompts, self.text_encoder, self.tokenizer, self.family.name, length)
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


def _make_family(transformer: Any, vae: Any) -> Family:
    """What is known of a kind of model, for these very parts."""
    config = transformer.config
    temporal, spatial = get_vae_scales(vae.config)
    if isinstance(transformer, CogVideoXTransformer3DModel):
        side = int(config.patch_size)
        return CogVideoXFamily((1, side, side), temporal, spatial)
    return WanFamily(tuple(config.patch_size), temporal, spatial)


def _parse_positions(given: PositionsConfig | dict[str, Any] | None) -> PositionsConfig:
    if isinstance(given, PositionsConfig):
        return given
    try:
        return PositionsConfig(**(given or {}))
    except (ValidationError, TypeError) as error:
        raise RepriseError(f"the pipeline's positions are none that are known here: {given}") from error


def _group_by_prompt(references: Sequence[Any], prompts: int) -> list[list[PictureSource]]:
    """The pictures of each prompt."""
    if isinstance(references, Image.Image | str | Path):
        references = [references]
    nested = [isinstance(some, Sequence) and not isinstance(some, str) for some in references]
    if not any(nested):
        return [list(references)] * prompts
    if not all(nested) or len(references) != prompts:
        raise RepriseError(
            f"references of {len(references)} prompts for {prompts}; give a list for each prompt"
        )
    return [list(some) for some in references]
