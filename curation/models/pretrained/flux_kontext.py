"""FLUX.1 Kontext: the picture edited by instruction, the subject held in place (Kaleido 3.2 (5))."""

from __future__ import annotations

from typing import Any

from curation.model_spec import ModelSpec
from curation.models.pretrained.flux import FluxInpainter

_CLASS = "FluxKontextInpaintPipeline"
_ACCEPTED = ("FluxKontextPipeline", _CLASS)  # the same weights; the published folder says the former


class FluxKontext(FluxInpainter):
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
        """What the model is told for a description of the picture that is wanted; None: erase."""
        if prompt is None:
            return super().build_instruction(None)
        return str(self._options["instruction"]).replace("{prompt}", prompt)

    def _get_extra_arguments(self, height: int, width: int) -> dict[str, Any]:
        # Else it would choose a size of its own.
        return {
            "max_area": height * width,
            "_auto_resize": False,
            "strength": self._options["strength"],
        }
