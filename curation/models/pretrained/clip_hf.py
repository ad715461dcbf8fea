"""CLIP and SigLIP as transformers saves them: how well pictures fit texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curation.imaging.codec import RGB
from curation.models.checkpoints import resolve
from curation.models.pretrained.contrastive import (
    F32,
    Scorer,
    TextCache,
    check_fit,
    fill_colour,
    squared,
    unit,
)
from curation.models.pretrained.device import Batches, place
from curation.models.pretrained.loading import options, pretrained, processor, require_tokenizer, to_device
from curation.models.spec import ModelSpec
from reprise.errors import RepriseError

_WHAT = "CLIP or SigLIP"
_KINDS = ("clip", "siglip", "siglip2")


class ClipHf(Scorer):
    """roles.ImageTextScorer and, by its picture side, roles.ImageEmbedder.

    Option `fit`: "pad" (the picture whole, on a square of the mean colour) or "crop" (the checkpoint's own).
    """

    name = "clip-hf"

    def __init__(self, spec: ModelSpec) -> None:
        """Load model, tokenizer and image processor from a folder.

        Raises:
            RepriseError: it is not here, damaged, no CLIP or SigLIP, or without tokenizer or image processor.
        """
        from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

        given = options(spec, fit="pad")
        check_fit(spec, given["fit"])
        checkpoint = resolve(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        self._place = place(spec)
        kind = processor(AutoConfig, checkpoint, _WHAT).model_type
        if kind not in _KINDS:
            raise RepriseError(f"{checkpoint.path} is a {kind}, not one of {', '.join(_KINDS)}")
        self._pictures: Any = processor(AutoImageProcessor, checkpoint, f"the image processor of {_WHAT}")
        require_tokenizer(checkpoint, _WHAT)
        self._tokenize: Any = processor(AutoTokenizer, checkpoint, f"the tokenizer of {_WHAT}")
        self._model = pretrained(AutoModel, checkpoint, _WHAT, self._place.dtype).to(self._place.device)
        self._scale = float(self._model.logit_scale.detach().float().exp())
        # SigLIP was trained with every sentence padded to the full length and the padding attended to; with a
        # mask, which some of its tokenizers return, its sentences come out as other vectors.
        self._masked = kind == "clip"
        self._length = int(self._model.config.text_config.max_position_embeddings)
        self._fill = fill_colour(self._pictures, given["fit"])
        self._batches = Batches(spec.batch_size)
        self._texts = TextCache(self._encode_texts)

    def _encode_images(self, images: Sequence[RGB]) -> list[F32]:
        shown = images if self._fill is None else [squared(image, self._fill) for image in images]
        inputs = self._pictures(list(shown), return_tensors="pt", input_data_format="channels_last")
        return _vectors(self._model.get_image_features(**self._moved(inputs)))

    def _encode_texts(self, texts: Sequence[str]) -> F32:
        def run(batch: Sequence[str]) -> list[F32]:
            inputs = self._tokenize(
                list(batch),
                padding="longest" if self._masked else "max_length",
                truncation=True,
                max_length=self._length,
                return_tensors="pt",
                return_attention_mask=self._masked,
            )
            return _vectors(self._model.get_text_features(**self._moved(inputs)))

        return unit(np.stack(self._batches(texts, run)))

    def _moved(self, inputs: Any) -> dict[str, Any]:
        return to_device(inputs, self._place.device, self._place.dtype)


def _vectors(found: Any) -> list[F32]:
    """(n, d): of transformers: a tensor up to 4.x, an output with it as `pooler_output` since 5.0."""
    tensor = getattr(found, "pooler_output", found)
    return list(np.asarray(tensor.float().cpu().numpy(), np.float32))
