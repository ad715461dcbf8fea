"""Grounding DINO by transformers: a folder with `config.json`, weights, image processor and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from curation.imaging.codec import RGB
from curation.models.checkpoints import resolve
from curation.models.pretrained.device import Batches, place
from curation.models.pretrained.loading import options, pretrained, processor, to_device
from curation.models.pretrained.phrases import Prompt, Prompter, Rules, detect_each, pad
from curation.models.roles import Detection, Phrase, Scene
from curation.models.spec import ModelSpec
from reprise.errors import RepriseError

_WHAT = "Grounding DINO (transformers)"
_TYPES = ("grounding-dino", "mm-grounding-dino")  # one architecture; the second is MMDetection's training


class GroundingDinoHF:
    """roles.Detector. Options are those of `phrases.Rules`.

    In bfloat16 a box is a few thousandths of the picture off and near ties among queries fall otherwise;
    `dtype: float32` where that matters.

    Raises:
        RepriseError: no checkpoint, one of another model, or one without its tokenizer or image processor.
    """

    name = "grounding-dino-hf"

    def __init__(self, spec: ModelSpec) -> None:
        rules = Rules()
        self._rules = Rules(**options(spec, **vars(rules)))
        self._place = place(spec)
        self._batches = Batches(spec.batch_size)
        checkpoint = resolve(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        both = processor(AutoProcessor, checkpoint, _WHAT)
        self._images: Any = getattr(both, "image_processor", None)
        tokenizer: Any = getattr(both, "tokenizer", None)
        if self._images is None or tokenizer is None:
            lost = "image processor" if self._images is None else "tokenizer"
            raise RepriseError(f"{checkpoint.path} has no {lost}, which {_WHAT} needs")
        # Weights stay in float32, see Place.autocast.
        model = pretrained(AutoModelForZeroShotObjectDetection, checkpoint, _WHAT, torch.float32)
        if model.config.model_type not in _TYPES:
            raise RepriseError(f"{checkpoint.path} holds a {model.config.model_type}, not {_WHAT}")
        self._prompter = Prompter(tokenizer, min(model.config.max_text_len, 256))
        self._model = model.to(self._place.device)

    def detect(self, scenes: Sequence[Scene], phrases: Sequence[Sequence[Phrase]]) -> list[list[Detection]]:
        """For each scene, the boxes of its phrases, xyxy pixels of its image; best first."""
        return detect_each(scenes, phrases, self._prompter, self._batches, self._forward, self._rules)

    def _forward(self, images: Sequence[RGB], prompts: Sequence[Prompt]) -> list[tuple[Tensor, Tensor]]:
        """(logits (queries, tokens), boxes (queries, 4) centre and size in shares) per picture."""
        device = self._place.device
        # Said, because a picture three pixels high would be taken for one with its channels first.
        seen = self._images(list(images), return_tensors="pt", input_data_format="channels_last")
        with self._place.autocast():
            out = self._model(**to_device(seen, device, torch.float32), **pad(prompts, device))
        return list(zip(out.logits.float().cpu(), out.pred_boxes.float().cpu(), strict=True))
