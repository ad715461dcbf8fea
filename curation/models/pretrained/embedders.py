"""Embed pictures for identity. DINOv2 distinguishes individuals, CLIP kinds of things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained.clip_hf import ClipHf
from curation.models.pretrained.contrastive import F32, Embedder, check_fit, get_fill_colour, pad_to_square
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import (
    find_model_type,
    load_pretrained,
    load_processor,
    move_to_device,
    read_options,
)
from curation.models.pretrained.open_clip_scorer import OpenClipScorer

_MODEL_LABEL = "DINOv2"
_MODEL_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit")


class DinoEmbedder(Embedder):
    """roles.ImageEmbedder: the class token after the last norm of DINOv2 (also with registers, also DINOv3).

    Option `fit`: "pad" (the whole picture on a square of the mean colour) or "crop" (the checkpoint's own
    preprocessing: shorter side to 256 px, centre crop of 224 px).
    """

    name = "dinov2"

    def __init__(self, spec: ModelSpec) -> None:
        """Load model and image processor from a folder.

        Raises:
            RepriseError: the folder is not here, damaged, no DINO, or lacks its image processor.
        """
        from transformers import AutoImageProcessor, AutoModel

        given = read_options(spec, fit="pad")
        check_fit(spec, given["fit"])
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        self._target = choose_target(spec)
        find_model_type(checkpoint, _MODEL_TYPES, _MODEL_LABEL)
        self._pictures: Any = load_processor(
            AutoImageProcessor, checkpoint, f"the image processor of {_MODEL_LABEL}"
        )
        self._model = load_pretrained(AutoModel, checkpoint, _MODEL_LABEL, self._target.dtype).to(
            self._target.device
        )
        self._fill = get_fill_colour(self._pictures, given["fit"])
        self._share = _get_kept_share(self._pictures)
        self._batches = BatchRunner(spec.batch_size)

    def _encode_images(self, images: Sequence[RGB]) -> list[F32]:
        shown = (
            images
            if self._fill is None
            else [pad_to_square(image, self._fill, self._share) for image in images]
        )
        inputs = self._pictures(list(shown), return_tensors="pt", input_data_format="channels_last")
        found = self._model(**move_to_device(inputs, self._target.device, self._target.dtype))
        return list(np.asarray(found.last_hidden_state[:, 0].float().cpu().numpy(), np.float32))


class ClipEmbedder(ClipHf):
    """roles.ImageEmbedder: the image encoder of CLIP or SigLIP."""

    name = "clip-embedder"


class OpenClipEmbedder(OpenClipScorer):
    """roles.ImageEmbedder: the image encoder of an open_clip model."""

    name = "open-clip-embedder"


def _get_kept_share(pictures: Any) -> float:
    """Return the side of an image processor's centre crop / the side to which it resizes, 0..1."""
    size, crop = getattr(pictures, "size", None), getattr(pictures, "crop_size", None)
    if not getattr(pictures, "do_center_crop", False) or not size or not crop:
        return 1.0
    resized = _get_side(size)
    return min(1.0, _get_side(crop) / resized) if resized else 1.0


def _get_side(size: Any) -> float:
    found = dict(size) if not isinstance(size, int) else {"shortest_edge": size}
    return float(found.get("shortest_edge") or found.get("height") or 0)
