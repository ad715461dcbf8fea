"""FLUX.1 Fill: paint the content of a mask from a description (Kaleido 3.2 (5))."""

from __future__ import annotations

from curation.model_spec import ModelSpec
from curation.models.pretrained.flux import FluxInpainter

_CLASS = "FluxFillPipeline"


class FluxFill(FluxInpainter):
    """roles.Inpainter. The model gets the pixels outside the mask and a description of the whole picture.

    Options:
        steps (50), guidance (30.0): as published with the model.
        side (1024): square root of the area it paints at, px; 0: as large as the picture.
        erase ("an empty background, nothing in the foreground"): the description if there is no prompt.
        tokens (512): most tokens of the prompt; 512 is the model's limit.
        offload ("none"): see `flux.place_pipeline`.
    """

    name = "flux-fill"

    def __init__(self, spec: ModelSpec) -> None:
        """As FluxInpainter."""
        super().__init__(
            spec,
            _CLASS,
            [_CLASS],
            steps=50,
            guidance=30.0,
            side=1024,
            erase="an empty background, nothing in the foreground",
            tokens=512,
            offload="none",
        )
