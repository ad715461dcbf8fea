"""SAM by segment-anything, from a `.pth` and the name of its architecture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained import pth
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import read_options
from curation.models.pretrained.masks import scale_boxes, select_best_masks, skip_without_boxes
from curation.models.roles import Segmentation
from reprise.errors import RepriseError

_MODEL_LABEL = "SAM (segment-anything)"
_WIDTH_TYPES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}  # segment_anything.build_sam
# The values that `build_sam` fixes for its three sizes; a JSON beside the `.pth` can change them.
_ARCHITECTURE: dict[str, Any] = {
    "image_size": 1024,
    "patch_size": 16,
    "encoder_width": 768,
    "encoder_depth": 12,
    "encoder_heads": 12,
    "encoder_global": [2, 5, 8, 11],
    "encoder_window": 14,
    "encoder_mlp_ratio": 4,
    "width": 256,
    "mask_channels": 16,
    "decoder_depth": 2,
    "decoder_heads": 8,
    "decoder_mlp": 2048,
    "iou_depth": 3,
    "iou_width": 256,
}


class SamOriginal:
    """roles.Segmenter.

    The checkpoint is a `.pth`, or a folder with one. The option `model_type` names vit_b, vit_l or vit_h of
    the library's registry. Without it, a JSON of the same name beside the `.pth` holds the sizes (keys of
    `_ARCHITECTURE`). Without both, the width of the encoder decides between the three.

    Raises:
        RepriseError: a file is missing, incomplete, or of another model.
    """

    name = "sam-original"

    def __init__(self, spec: ModelSpec) -> None:
        chosen = read_options(spec, model_type=None)["model_type"]
        self._target = choose_target(spec)
        self._batches = BatchRunner(spec.batch_size)
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        weights = pth.find_single_file(checkpoint.path, ".pth", _MODEL_LABEL)
        state = pth.read_weights(weights, checkpoint, _MODEL_LABEL)
        self._sam = build_empty_model(weights, state, chosen)
        pth.load_weights(self._sam, state, weights, _MODEL_LABEL)
        self._sam.eval().to(self._target.device)

    def segment(self, images: Sequence[RGB], boxes: Sequence[Sequence[list[float]]]) -> list[Segmentation]:
        """Return one cleaned mask per box, (H, W) bool, the best of three; scores are predicted IoU, 0..1."""
        return self._batches(list(zip(images, boxes, strict=True)), skip_without_boxes(self._segment_batch))

    def _segment_batch(self, items: Sequence[tuple[RGB, list[list[float]]]]) -> list[Segmentation]:
        device, sam = self._target.device, self._sam
        side = sam.image_encoder.img_size
        scaled = [resize_longest_side(image, side) for image, _ in items]
        with self._target.enter_autocast():
            inputs = torch.stack([sam.preprocess(each.to(device)) for each in scaled])
            embeddings: Tensor = sam.image_encoder(inputs)
        results = []
        # Prompts and masks use float32. They cost little, and bfloat16 would shift a box by a pixel or two.
        for (image, boxes), small, embedding in zip(items, scaled, embeddings.float(), strict=True):
            size, valid = image.shape[:2], (small.shape[1], small.shape[2])
            sparse, dense = sam.prompt_encoder(
                points=None, boxes=scale_boxes(boxes, size, valid, device), masks=None
            )
            logits, scores = sam.mask_decoder(
                image_embeddings=embedding[None],
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
            results.append(Segmentation(*select_best_masks(logits, scores, size, (side, side), valid)))
        return results


def resize_longest_side(image: RGB, side: int) -> Tensor:
    """Resize (H, W, 3) uint8 to (3, h, w) float32, 0..255, with a longer side of `side` px."""
    scaled = ResizeLongestSide(side).apply_image(image)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))).float()


def build_empty_model(path: Path, state: dict[str, Tensor], chosen: str | None) -> Any:
    """Build an empty model; the option, a JSON beside `path`, or the weights determine its architecture.

    Raises:
        RepriseError: no such architecture.
    """
    beside = path.with_suffix(".json")
    if chosen is None and beside.is_file():
        return build_from_sizes(read_model_sizes(beside))
    if chosen is None:
        width = state["image_encoder.pos_embed"].shape[-1] if "image_encoder.pos_embed" in state else 0
        chosen = _WIDTH_TYPES.get(width)
        if chosen is None:
            raise RepriseError(
                f"{path} is a checkpoint of another model than {_MODEL_LABEL}, or of an unknown size: "
                f"set options.model_type, or write its sizes to {beside.name}"
            )
    if chosen not in sam_model_registry:
        raise RepriseError(
            f"{_MODEL_LABEL} has no model_type {chosen}; known: {', '.join(sam_model_registry)}"
        )
    return sam_model_registry[chosen](checkpoint=None)


def read_model_sizes(path: Path) -> dict[str, Any]:
    """Read the JSON of sizes; missing keys have the values of ViT-B.

    Raises:
        RepriseError: not JSON, or a key that is none of `_ARCHITECTURE`.
    """
    try:
        sizes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RepriseError(f"cannot read {path}: {error}") from error
    unknown = sorted(set(sizes) - set(_ARCHITECTURE)) if isinstance(sizes, dict) else ["no mapping"]
    if unknown:
        raise RepriseError(f"{path} may hold the keys {', '.join(_ARCHITECTURE)}; not {', '.join(unknown)}")
    return {**_ARCHITECTURE, **sizes}


def build_from_sizes(sizes: dict[str, Any]) -> Any:
    """Build a model as `segment_anything.build_sam` does, with free sizes."""
    side = sizes["image_size"] // sizes["patch_size"]
    return Sam(
        image_encoder=ImageEncoderViT(
            depth=sizes["encoder_depth"],
            embed_dim=sizes["encoder_width"],
            img_size=sizes["image_size"],
            mlp_ratio=sizes["encoder_mlp_ratio"],
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_heads=sizes["encoder_heads"],
            patch_size=sizes["patch_size"],
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=sizes["encoder_global"],
            window_size=sizes["encoder_window"],
            out_chans=sizes["width"],
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=sizes["width"],
            image_embedding_size=(side, side),
            input_image_size=(sizes["image_size"], sizes["image_size"]),
            mask_in_chans=sizes["mask_channels"],
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=sizes["decoder_depth"],
                embedding_dim=sizes["width"],
                mlp_dim=sizes["decoder_mlp"],
                num_heads=sizes["decoder_heads"],
            ),
            transformer_dim=sizes["width"],
            iou_head_depth=sizes["iou_depth"],
            iou_head_hidden_dim=sizes["iou_width"],
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
