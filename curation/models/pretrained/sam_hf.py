"""SAM and SAM 2 for pictures by transformers: a folder with `config.json`, weights and image processor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoImageProcessor, Sam2Model, SamModel

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import Checkpoint, resolve_checkpoint
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import load_pretrained, load_processor, read_options
from curation.models.pretrained.masks import scale_boxes, select_best_masks, skip_without_boxes
from curation.models.roles import Segmentation
from reprise.errors import RepriseError

_MODEL_LABEL = "SAM (transformers)"
# SAM 2 is published as a video model, which contains the picture model.
_MODEL_CLASSES: dict[str, Any] = {"sam": SamModel, "sam2": Sam2Model, "sam2_video": Sam2Model}


class SamHF:
    """roles.Segmenter, without options.

    Raises:
        RepriseError: there is no checkpoint, it is of another model, or it lacks its image processor.
    """

    name = "sam-hf"

    def __init__(self, spec: ModelSpec) -> None:
        read_options(spec)
        self._target = choose_target(spec)
        self._batches = BatchRunner(spec.batch_size)
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        kind = read_model_type(checkpoint)
        if kind not in _MODEL_CLASSES:
            raise RepriseError(
                f"{checkpoint.path} holds a {kind}, not {_MODEL_LABEL}: one of {', '.join(_MODEL_CLASSES)}"
            )
        self._pads = kind == "sam"
        self._images = load_processor(AutoImageProcessor, checkpoint, _MODEL_LABEL)
        # Weights stay in float32, see `ComputeTarget.enter_autocast`.
        self._model = load_pretrained(_MODEL_CLASSES[kind], checkpoint, _MODEL_LABEL, torch.float32).to(
            self._target.device
        )

    def segment(self, images: Sequence[RGB], boxes: Sequence[Sequence[list[float]]]) -> list[Segmentation]:
        """Return one cleaned mask per box, (H, W) bool, the best of three; scores are predicted IoU, 0..1."""
        return self._batches(list(zip(images, boxes, strict=True)), skip_without_boxes(self._segment_batch))

    def _segment_batch(self, items: Sequence[tuple[RGB, list[list[float]]]]) -> list[Segmentation]:
        device = self._target.device
        inputs = self._images(
            [image for image, _ in items], return_tensors="pt", input_data_format="channels_last"
        )
        with self._target.enter_autocast():
            embedded = self._model.get_image_embeddings(inputs["pixel_values"].to(device))
        canvas = (int(inputs["pixel_values"].shape[2]), int(inputs["pixel_values"].shape[3]))
        results = []
        # Prompts and masks use float32. They cost little, and bfloat16 would shift a box by a pixel or two.
        for index, (image, boxes) in enumerate(items):
            size = image.shape[:2]
            # SAM scales to the long side and pads; SAM 2 stretches to a square.
            height, width = inputs["reshaped_input_sizes"][index].tolist() if self._pads else canvas
            prompts = scale_boxes(boxes, size, (height, width), device)
            out = self._model(
                image_embeddings=_select_embedding(embedded, index),
                input_boxes=prompts[None],
                multimask_output=True,
            )
            logits, scores = out.pred_masks[0], out.iou_scores[0]
            padded = (canvas, (height, width)) if self._pads else (None, None)
            results.append(Segmentation(*select_best_masks(logits, scores, size, *padded)))
        return results


def _select_embedding(embedded: Tensor | list[Tensor], index: int) -> Tensor | list[Tensor]:
    """Select the embedding of one picture of a batch: one map for SAM, several for SAM 2."""
    if isinstance(embedded, Tensor):
        return embedded[index : index + 1].float()
    return [level[index : index + 1].float() for level in embedded]


def read_model_type(checkpoint: Checkpoint) -> str:
    """Read `model_type` from a checkpoint folder's `config.json`.

    Raises:
        RepriseError: there is no such file, or it has no `model_type`.
    """
    path = checkpoint.path / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RepriseError(
            f"{path} is missing or has no model_type: this is no checkpoint of transformers"
        ) from error
