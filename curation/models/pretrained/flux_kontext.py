"""FLUX.1 Kontext: edit a picture by instruction while the subject stays in place (Kaleido 3.2 (5))."""

from __future__ import annotations

from typing import Any

from curation.model_spec import ModelSpec
from curation.models.pretrained.flux import FluxInpainter

_CLASS = "FluxKontextInpaintPipeline"
_ACCEPTED = ("FluxKontextPipeline", _CLASS)  # the same weights; the published folder has the first


class FluxKontext(FluxInpainter):
    """roles.Inpainter. The model gets the whole picture, with its masked parts, and an instruction.

    At every step the latents outside the mask are reset, so that the change fits them. At the end the pixels
    outside the mask are restored. Unlike FLUX Fill, the model knows the old content: good for "the same place
    at night".

    Options:
        steps (28), guidance (2.5): as published with the model.
        strength (1.0): in (0, 1]. 1 starts from noise, less keeps some of the content under the mask.
        side (1024): square root of the area it paints at, px, as in the model's training; 0: as the picture.
        instruction: the instruction; {prompt} is replaced by the description of the new picture.
        erase: the instruction if there is no prompt.
        tokens (512): most tokens of the instruction; 512 is the model's limit.
        offload ("none"): see `flux.place_pipeline`.
    """

    name = "flux-kontext"

    def __init__(self, spec: ModelSpec) -> None:
        """As FluxInpainter."""
        super().__init__(
            spec,
            _CLASS,
            _ACCEPTED,
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

    def build_instruction(self, prompt: str | None) -> str:
        """Build the model's instruction from a description of the new picture; None: erase."""
        if prompt is None:
            return super().build_instruction(None)
        return str(self._options["instruction"]).replace("{prompt}", prompt)

    def _get_extra_arguments(self, height: int, width: int) -> dict[str, Any]:
        # Without these arguments the pipeline chooses a size itself.
        return {
            "max_area": height * width,
            "_auto_resize": False,
            "strength": self._options["strength"],
        }
