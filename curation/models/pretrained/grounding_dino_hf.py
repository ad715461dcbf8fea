"""Grounding DINO by transformers: a folder with `config.json`, weights, image processor and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import load_pretrained, load_processor, move_to_device, read_options
from curation.models.pretrained.phrases import (
    DetectionRules,
    Prompt,
    PromptPacker,
    detect_scenes,
    pad_prompts,
)
from curation.models.roles import Detection, DetectionScene, Phrase
from reprise.errors import RepriseError

_MODEL_LABEL = "Grounding DINO (transformers)"
_MODEL_TYPES = (
    "grounding-dino",
    "mm-grounding-dino",
)  # one architecture; MMDetection trained the second


class GroundingDinoHF:
    """roles.Detector. Options are those of `phrases.DetectionRules`.

    In bfloat16 a box differs by a few thousandths of the picture, and another one of nearly equal queries may
    win. Set `dtype: float32` to avoid that.

    Raises:
        RepriseError: there is no checkpoint, it is of another model, or it lacks tokenizer or image
            processor.
    """

    name = "grounding-dino-hf"

    def __init__(self, spec: ModelSpec) -> None:
        rules = DetectionRules()
        self._rules = DetectionRules(**read_options(spec, **vars(rules)))
        self._target = choose_target(spec)
        self._batches = BatchRunner(spec.batch_size)
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        both = load_processor(AutoProcessor, checkpoint, _MODEL_LABEL)
        self._images: Any = getattr(both, "image_processor", None)
        tokenizer: Any = getattr(both, "tokenizer", None)
        if self._images is None or tokenizer is None:
            lost = "image processor" if self._images is None else "tokenizer"
            raise RepriseError(f"{checkpoint.path} has no {lost}, which {_MODEL_LABEL} needs")
        # Weights stay in float32, see `ComputeTarget.enter_autocast`.
        model = load_pretrained(AutoModelForZeroShotObjectDetection, checkpoint, _MODEL_LABEL, torch.float32)
        if model.config.model_type not in _MODEL_TYPES:
            raise RepriseError(f"{checkpoint.path} holds a {model.config.model_type}, not {_MODEL_LABEL}")
        self._prompter = PromptPacker(tokenizer, min(model.config.max_text_len, 256))
        self._model = model.to(self._target.device)

    def detect(
        self, scenes: Sequence[DetectionScene], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Detection]]:
        """Find boxes of the phrases in each scene, xyxy in pixels of its image, the best first."""
        return detect_scenes(scenes, phrases, self._prompter, self._batches, self._run_model, self._rules)

    def _run_model(self, images: Sequence[RGB], prompts: Sequence[Prompt]) -> list[tuple[Tensor, Tensor]]:
        """Return per picture logits (queries, tokens) and boxes (queries, 4), centre and size in shares."""
        device = self._target.device
        # The format is given, because a picture 3 px high would be read as one with its channels first.
        inputs = self._images(list(images), return_tensors="pt", input_data_format="channels_last")
        with self._target.enter_autocast():
            out = self._model(**move_to_device(inputs, device, torch.float32), **pad_prompts(prompts, device))
        return list(zip(out.logits.float().cpu(), out.pred_boxes.float().cpu(), strict=True))
