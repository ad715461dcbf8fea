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
    AutoencoderKLWan,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    WanTransformer3DModel,
)
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoTokenizer, UMT5EncoderModel

from training import references as pictures
from training.config import PositionsConfig
from training.errors import RepriseError
from training.models.components import INDEX, part_config, vae_class
from training.models.family import Conditioning
from training.models.text import embed
from training.models.vae import decode, encode_picture
from training.models.wan import WanFamily
from training.references import Picture, open_picture
from training.sampling import euler, guided_velocity
from training.schedules import sampling_sigmas
from training.video_size import check_size, grid_of


@dataclass
class ReferenceToVideoOutput(BaseOutput):
    frames: Any  # as `output_type` says: (B, T, H, W, 3) array, (B, T, 3, H, W) tensor, or lists of pictures


class ReferenceToVideoPipeline(DiffusionPipeline):
    """Kaleido's inference on stock diffusers parts: those of a Wan 2.1 text-to-video pipeline, or of Wan 2.2
    TI2V.

    positions: where references lie (PositionsConfig, or a dict of its fields), as the transformer was
    trained; kept in model_index.json. The transformer is changed in place (its rotary embedding) and from
    then on is called through the family alone.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        tokenizer: AutoTokenizer,
        text_encoder: UMT5EncoderModel,
        vae: AutoencoderKLWan,
        scheduler: FlowMatchEulerDiscreteScheduler,
        transformer: WanTransformer3DModel,
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
        self.positions = _positions(positions)
        self.register_to_config(positions=self.positions.model_dump())
        config = transformer.config
        self.family = WanFamily(
            tuple(config.patch_size),
            int(vae.config.scale_factor_temporal),
            int(vae.config.scale_factor_spatial),
            min(512, tokenizer.model_max_length),
        )
        self.family.prepare(transformer, self.positions, config.in_channels // config.out_channels - 1)
        self.video_processor = VideoProcessor(vae_scale_factor=self.family.spatial_scale)

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> ReferenceToVideoPipeline:
        """A diffusers pipeline folder or hub id; options are diffusers' (`dtype`, `revision`, ...).

        `positions` overrides what the folder says. RepriseError where a part is missing or of another model.
        """
        revision = options.get("revision")
        if "transformer" not in options:
            _, settings = part_config(str(path), revision, "transformer")
            if settings.get("_class_name") != "WanTransformer3DModel":
                raise RepriseError(
                    f"{path} holds a {settings.get('_class_name')}; this pipeline runs Wan transformers"
                )
        folder = Path(path)
        if folder.is_dir() and not (folder / INDEX).is_file():
            raise RepriseError(
                f"{folder} has no {INDEX}: a whole pipeline folder is needed, not a transformer alone "
                "(`reprise convert kaleido IN OUT --base WAN` makes one)"
            )
        if (folder / "transformer_2").is_dir():
            raise RepriseError(f"{folder} has two transformers (Wan 2.2 A14B); models with one are supported")
        _, settings = part_config(str(path), revision, "vae")
        vae_class(
            settings.get("_class_name", "")
        )  # diffusers takes classes of ours only once they are imported
        try:
            pipeline: ReferenceToVideoPipeline = super().from_pretrained(path, **options)
        except (OSError, ValueError, AttributeError) as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise RepriseError(f"{path} could not be loaded as a pipeline: {line}") from error
        return pipeline

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(
        self,
        prompt: str | Sequence[str],
        references: Sequence[Any] = (),
        *,
        height: int = 480,
        width: int = 832,
        num_frames: int = 81,
        num_inference_steps: int = 50,
        guidance_scale: float = 6.0,
        reference_guidance_scale: float | None = None,
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
        multiples of 16; num_frames: 4n + 1.
        guidance_scale: on the text. reference_guidance_scale: on the references, apart from the text; None:
        references are never left out (as released).
        flow_shift: of the sampling grid, 7 at any resolution (as released).
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
        check_size((height, width, num_frames), grid_of(self.transformer.config, self.vae.config))
        given = _per_prompt(references, len(prompts))
        shown = [[open_picture(picture) for picture in some] for some in given]
        device, dtype = self._execution_device, self.transformer.dtype
        noise = self._noise(len(prompts), (height, width, num_frames), generator, seed, latents)
        sigmas = sampling_sigmas(num_inference_steps, flow_shift).tolist()
        empty = self._text([negative_prompt])
        texts = self._text(prompts)
        done = []
        with self.progress_bar(total=num_inference_steps * len(prompts)) as bar:
            for i, some in enumerate(shown):

                def on_step(step: int, now: Tensor) -> None:
                    bar.update()
                    if callback is not None:
                        callback(self, step, round(1000 * sigmas[step]), {"latents": now})

                ready = [self.prepare_reference(one, height, width, pad_references) for one in some]
                clean = tuple(encode_picture(self.vae, picture.to(device)) for picture in ready)
                velocity = guided_velocity(
                    self.family,
                    self.transformer,
                    Conditioning(texts[i : i + 1], clean),
                    empty,
                    self.positions,
                    text=guidance_scale,
                    reference=reference_guidance_scale,
                    dtype=dtype,
                )
                done.append(euler(velocity, noise[i : i + 1].to(device), sigmas, on_step))
        if output_type == "latent":
            video: Any = torch.cat(done)
        else:
            decoded = torch.cat([decode(self.vae, part).float().cpu() for part in done])
            video = self.video_processor.postprocess_video(decoded, output_type=output_type)
        self.maybe_free_model_hooks()
        return ReferenceToVideoOutput(frames=video) if return_dict else (video,)

    def prepare_reference(self, picture: Image.Image, height: int, width: int, pad: bool = True) -> Tensor:
        """What the VAE sees of a picture: (3, H, W) float32 in [-1, 1], of the video's size where padded."""
        if pad:
            return pictures.prepare(picture, height, width)
        rows, columns = (self.family.spatial_scale * step for step in self.family.patch[1:])
        picture = pictures.on_white(picture)
        w, h = pictures.fitted_size(picture.size, height, width)
        size = max(columns, w // columns * columns), max(rows, h // rows * rows)
        return pictures.to_tensor(picture.resize(size, Image.Resampling.LANCZOS))

    def _text(self, prompts: Sequence[str]) -> Tensor:
        """(prompts, 512, D): zeros after the last token, no mask, as Wan was trained."""
        length = self.family.text_length
        rows = embed(prompts, self.text_encoder, self.tokenizer, self.family.name, length)
        filled = rows[0].new_zeros(len(rows), length, rows[0].shape[-1])
        for row, text in zip(filled, rows, strict=True):
            row[: len(text)] = text
        return filled.to(self._execution_device, self.transformer.dtype)

    def _noise(
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


def _positions(given: PositionsConfig | dict[str, Any] | None) -> PositionsConfig:
    if isinstance(given, PositionsConfig):
        return given
    try:
        return PositionsConfig(**(given or {}))
    except (ValidationError, TypeError) as error:
        raise RepriseError(f"the pipeline's positions are none that are known here: {given}") from error


def _per_prompt(references: Sequence[Any], prompts: int) -> list[list[Picture]]:
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
