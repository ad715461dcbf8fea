"""FLUX.1 Fill: what is under a mask painted anew, as told (Kaleido 3.2 (5))."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from curation.imaging import RGB, BoolMask
from curation.models.checkpoints import resolve
from curation.models.full import flux
from curation.models.full.device import Batches, place
from curation.models.full.loading import options
from curation.models.spec import ModelSpec

_CLASS = "FluxFillPipeline"


class FluxFill:
    """roles.Inpainter. The model sees what is not masked and gets a description of the whole picture.

    Options:
        steps (50), guidance (30.0): as published with the model.
        side (1024): square root of the area it paints at, px; 0: as large as the picture.
        erase ("an empty background, nothing in the foreground"): what it is told where nothing is asked for.
        tokens (512): of the prompt; the longest that the model knows.
        offload ("none"): see `flux.settle`.
    """

    name = "flux-fill"
    paints_around = True

    def __init__(self, spec: ModelSpec) -> None:
        """Load the pipeline from a folder in diffusers layout.

        Raises:
            RepriseError: the folder is not here, not whole, or of another pipeline; or an option is wrong.
        """
        self._options = options(
            spec,
            steps=50,
            guidance=30.0,
            side=1024,
            erase="an empty background, nothing in the foreground",
            tokens=512,
            offload="none",
        )
        flux.check_options(spec, self._options)
        checkpoint = resolve(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        self._pipeline = flux.load_pipeline(
            checkpoint, _CLASS, [_CLASS], place(spec), self._options["offload"]
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

    def _paint(self, jobs: Sequence[flux.Job]) -> list[RGB]:
        height, width = jobs[0].size
        painted = self._pipeline(
            prompt=[self._options["erase"] if job.prompt is None else job.prompt for job in jobs],
            image=[Image.fromarray(job.image) for job in jobs],
            mask_image=[Image.fromarray(job.mask) for job in jobs],
            height=height,
            width=width,
            num_inference_steps=self._options["steps"],
            guidance_scale=self._options["guidance"],
            max_sequence_length=self._options["tokens"],
            generator=flux.generators(jobs),
            output_type="np",
        )
        return flux.to_pictures(painted.images)
