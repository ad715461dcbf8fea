"""FLUX.1 Kontext: the picture edited by instruction, the subject held in place (Kaleido 3.2 (5))."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from curation.imaging import RGB, BoolMask
from curation.models.checkpoints import resolve
from curation.models.full import flux
from curation.models.full.device import Batches, place
from curation.models.full.loading import options
from curation.models.spec import ModelSpec

_CLASS = "FluxKontextInpaintPipeline"
_ACCEPTED = ("FluxKontextPipeline", _CLASS)  # the same weights; the published folder says the former


class FluxKontext:
    """roles.Inpainter. The model sees the whole picture, masked parts too, and is told how to change it.

    Latents of what is not masked are kept at every step, so that the change joins it; then those pixels are
    put back. Against FLUX Fill it knows what was there before: good for "the same place at night".

    Options:
        steps (28), guidance (2.5): as published with the model.
        strength (1.0): 1 starts from noise, less keeps some of what was under the mask; above 0.
        side (1024): square root of the area it paints at, px, as the model was trained; 0: as the picture.
        instruction: what it is told; {prompt} stands for the description of the picture that is wanted.
        erase: what it is told where nothing is asked for.
        tokens (512): of the instruction; the longest that the model knows.
        offload ("none"): see `flux.settle`.
    """

    name = "flux-kontext"
    paints_around = True

    def __init__(self, spec: ModelSpec) -> None:
        """Load the pipeline from a folder in diffusers layout.

        Raises:
            RepriseError: the folder is not here, not whole, or of another pipeline; or an option is wrong.
        """
        self._options = options(
            spec,
            steps=28,
            guidance=2.5,
            strength=1.0,
            side=1024,
            instruction="Change the background so that the picture shows {prompt}. "
            "Keep the subject, its pose and its place in the picture exactly as they are.",
            erase="Remove what is in the foreground and show the empty background behind it.",
            tokens=512,
            offload="none",
        )
        flux.check_options(spec, self._options)
        checkpoint = resolve(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        self._pipeline = flux.load_pipeline(
            checkpoint, _CLASS, _ACCEPTED, place(spec), self._options["offload"]
        )
        self._batches = Batches(spec.batch_size)

    def inpaint(
        self,
        images: Sequence[RGB],
        masks: Sequence[BoolMask],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[RGB]:
        """As roles.Inpainter."""
        return flux.inpaint(
            images,
            masks,
            prompts,
            seeds,
            side=self._options["side"],
            multiple=2 * self._pipeline.vae_scale_factor,
            batches=self._batches,
            painter=self._paint,
        )

    def instruction(self, prompt: str | None) -> str:
        """What the model is told for a description of the picture that is wanted."""
        if prompt is None:
            return str(self._options["erase"])
        return str(self._options["instruction"]).replace("{prompt}", prompt)

    def _paint(self, jobs: Sequence[flux.Job]) -> list[RGB]:
        height, width = jobs[0].size
        painted = self._pipeline(
            prompt=[self.instruction(job.prompt) for job in jobs],
            image=[Image.fromarray(job.image) for job in jobs],
            mask_image=[Image.fromarray(job.mask) for job in jobs],
            height=height,
            width=width,
            # Else it would choose a size of its own.
            max_area=height * width,
            _auto_resize=False,
            strength=self._options["strength"],
            num_inference_steps=self._options["steps"],
            guidance_scale=self._options["guidance"],
            max_sequence_length=self._options["tokens"],
            generator=flux.generators(jobs),
            output_type="np",
        )
        return flux.to_pictures(painted.images)
