"""FLUX Redux: make another picture of the same subject (Kaleido 3.2 (6), "novel poses and motions")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from curation.imaging.codec import RGB
from curation.imaging.cutout import RGBA, composite_over
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained import flux
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import read_options
from reprise.digest import compute_digest
from reprise.errors import RepriseError

_PRIOR, _BASE = "FluxPriorReduxPipeline", "FluxPipeline"
_WHITE = 255


class FluxRedux:
    """roles.Variator. The prior makes tokens of the subject on white; its base, FLUX.1 [dev], paints them.

    The result is opaque: a whole picture that the model painted around the subject.

    Options:
        base ("black-forest-labs/FLUX.1-dev"), base_revision: checkpoint of the base. The spec's own
        checkpoint is
            the prior.
        steps (50), guidance (2.5): as published with the model.
        side (1024): square root of the area it paints at, px; 0: as large as the subject.
        prompted (true): the base's text encoders read the prompt, and its tokens precede the picture's;
            false: no prompt, as in the published prior.
        strength (1.0): weight of the picture's tokens. Less lets the prompt change more, also of the subject.
        tokens (512): most tokens of the prompt; 512 is the model's limit.
        offload ("none"): of the base, see `flux.place_pipeline`.
    """

    name = "flux-redux"

    def __init__(self, spec: ModelSpec) -> None:
        """Load prior and base from folders in diffusers layout.

        Raises:
            RepriseError: a folder is not here, incomplete, or of another pipeline; prior and base do not
                match; or an option is wrong.
        """
        self._options = read_options(
            spec,
            base="black-forest-labs/FLUX.1-dev",
            base_revision=None,
            steps=50,
            guidance=2.5,
            side=1024,
            prompted=True,
            strength=1.0,
            tokens=512,
            offload="none",
        )
        flux.check_options(spec, self._options)
        where = choose_target(spec)
        prior = resolve_checkpoint(spec)
        base_spec = spec.model_copy(
            update={"checkpoint": self._options["base"], "revision": self._options["base_revision"]}
        )
        # The cheap checks of both come first, so that a wrong prior is reported before 34 GB are loaded.
        flux.check_folder(prior, [_PRIOR])
        base = resolve_checkpoint(base_spec)
        self.revision = f"{prior.revision}+{base.revision}"
        self.sha256 = compute_digest(prior.sha256, base.sha256, length=64)
        self._prior = flux.load_flux_pipeline(prior, _PRIOR, [_PRIOR], where, "none")
        self._base = flux.load_flux_pipeline(base, _BASE, [_BASE], where, self._options["offload"])
        wide = int(self._prior.image_embedder.config.txt_in_features)
        if wide != self._config.joint_attention_dim:
            raise RepriseError(
                f"{prior.path} makes tokens of {wide} numbers, {base.path} reads "
                f"{self._config.joint_attention_dim}: choose a prior and a base that match"
            )
        self._target = where
        self._batches = BatchRunner(spec.batch_size)

    @property
    def _config(self) -> Any:
        return self._base.transformer.config

    def vary(
        self, subjects: Sequence[RGBA], prompts: Sequence[str | None], seeds: Sequence[int]
    ) -> list[RGBA]:
        """Make pictures (H', W', 4) of about the cut-outs' shape, alpha 255, from cut-outs (H, W, 4)."""
        jobs = []
        for subject, prompt, seed in zip(subjects, prompts, seeds, strict=True):
            canvas = flux.choose_canvas(
                subject.shape[0], subject.shape[1], self._options["side"], 2 * self._base.vae_scale_factor
            )
            jobs.append(flux.PaintJob(prompt, seed, canvas.size, paste_on_white(subject)))
        painted = flux.paint_jobs(jobs, self._batches, self._paint_batch)
        return [np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]) for picture in painted]

    def _paint_batch(self, jobs: Sequence[flux.PaintJob]) -> list[RGB]:
        height, width = jobs[0].size
        tokens, pooled = self.encode_conditions([job.image for job in jobs], [job.prompt for job in jobs])
        painted = self._base(
            prompt_embeds=tokens,
            pooled_prompt_embeds=pooled,
            height=height,
            width=width,
            num_inference_steps=self._options["steps"],
            guidance_scale=self._options["guidance"],
            generator=flux.make_generators(jobs),
            output_type="np",
        )
        return flux.convert_to_images(painted.images)

    def encode_conditions(
        self, images: Sequence[RGB], prompts: Sequence[str | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens (n, text + picture, d) and pooled text (n, p) for the base.

        For one picture they equal the prior's result. The prior itself would blend several pictures into one.
        """
        device, dtype = self._target.device, self._target.dtype
        seen = self._prior.encode_image([Image.fromarray(image) for image in images], device, 1)
        shown = self._prior.image_embedder(seen).image_embeds.to(device=device, dtype=dtype)
        texts, pooled = zip(*(self._encode_prompt(prompt) for prompt in prompts), strict=True)
        tokens = torch.cat([torch.cat(texts), shown * self._options["strength"]], dim=1)
        return tokens, torch.cat(pooled)

    def _encode_prompt(self, prompt: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return text tokens (1, tokens, d) and pooled text (1, p); zeros without a prompt."""
        device, dtype, count = self._target.device, self._target.dtype, self._options["tokens"]
        if prompt is None or not self._options["prompted"]:
            return (
                torch.zeros((1, count, self._config.joint_attention_dim), device=device, dtype=dtype),
                torch.zeros((1, self._config.pooled_projection_dim), device=device, dtype=dtype),
            )
        tokens, pooled, _ = self._base.encode_prompt(
            prompt=prompt, prompt_2=None, device=device, max_sequence_length=count
        )
        return tokens.to(dtype), pooled.to(dtype)


def paste_on_white(subject: RGBA) -> RGB:
    """Paste the subject in the middle of a white square: the prior's encoder would squeeze another shape."""
    height, width = subject.shape[:2]
    side = max(height, width)
    canvas = np.full((side, side, 3), _WHITE, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    window = canvas[top : top + height, left : left + width]
    window[...] = composite_over(subject, window.copy())
    return cast(RGB, canvas)
