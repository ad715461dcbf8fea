"""CLIP and SigLIP in the format of transformers: they score how well texts fit pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained.contrastive import (
    F32,
    Scorer,
    TextCache,
    check_fit,
    get_fill_colour,
    normalize_rows,
    pad_to_square,
)
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import (
    find_model_type,
    load_pretrained,
    load_processor,
    move_to_device,
    read_options,
    require_tokenizer,
)

_MODEL_LABEL = "CLIP or SigLIP"
_MODEL_TYPES = ("clip", "siglip", "siglip2")


class ClipHf(Scorer):
    """roles.ImageTextScorer; its image encoder is also a roles.ImageEmbedder.

    Option `fit`: "pad" (the whole picture on a square of the mean colour) or "crop" (the checkpoint's own
    preprocessing).
    """

    name = "clip-hf"

    def __init__(self, spec: ModelSpec) -> None:
        """Load model, tokenizer and image processor from a folder.

        Raises:
            RepriseError: the folder is not here, damaged, no CLIP or SigLIP, or lacks tokenizer or image
                processor.
        """
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        given = read_options(spec, fit="pad")
        check_fit(spec, given["fit"])
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        self._target = choose_target(spec)
        kind = find_model_type(checkpoint, _MODEL_TYPES, _MODEL_LABEL)
        self._pictures: Any = load_processor(
            AutoImageProcessor, checkpoint, f"the image processor of {_MODEL_LABEL}"
        )
        require_tokenizer(checkpoint, _MODEL_LABEL)
        self._tokenize: Any = load_processor(AutoTokenizer, checkpoint, f"the tokenizer of {_MODEL_LABEL}")
        self._model = load_pretrained(AutoModel, checkpoint, _MODEL_LABEL, self._target.dtype).to(
            self._target.device
        )
        self._scale = float(self._model.logit_scale.detach().float().exp())
        # SigLIP was trained with every sentence padded to the full length and without an attention mask. Some
        # of its tokenizers return a mask, which would change the vectors.
        self._masked = kind == "clip"
        self._length = int(self._model.config.text_config.max_position_embeddings)
        self._fill = get_fill_colour(self._pictures, given["fit"])
        self._batches = BatchRunner(spec.batch_size)
        self._texts = TextCache(self._encode_texts)

    def _encode_images(self, images: Sequence[RGB]) -> list[F32]:
        shown = images if self._fill is None else [pad_to_square(image, self._fill) for image in images]
        inputs = self._pictures(list(shown), return_tensors="pt", input_data_format="channels_last")
        return _extract_vectors(self._model.get_image_features(**self._move_inputs(inputs)))

    def _encode_texts(self, texts: Sequence[str]) -> F32:
        def encode_batch(batch: Sequence[str]) -> list[F32]:
            inputs = self._tokenize(
                list(batch),
                padding="longest" if self._masked else "max_length",
                truncation=True,
                max_length=self._length,
                return_tensors="pt",
                return_attention_mask=self._masked,
            )
            return _extract_vectors(self._model.get_text_features(**self._move_inputs(inputs)))

        return normalize_rows(np.stack(self._batches(texts, encode_batch)))

    def _move_inputs(self, inputs: Any) -> dict[str, Any]:
        return move_to_device(inputs, self._target.device, self._target.dtype)


def _extract_vectors(found: Any) -> list[F32]:
    """Extract (n, d) vectors. transformers 4.x returns a tensor, 5.0 an output with `pooler_output`."""
    tensor = getattr(found, "pooler_output", found)
    return list(np.asarray(tensor.float().cpu().numpy(), np.float32))
