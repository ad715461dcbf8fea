"""Convert weights between the formats of the original libraries and of transformers, in both directions.

Names differ, and queries, keys and values form one matrix or three. No number changes. Weights without a
counterpart are not used for detection: BERT's pooler exists only in groundingdino-py's files and is taken
from `like`; the last norm of transformers' Swin keeps its initial values. Swin's `relative_position_index` is
computed from the window.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reprise.errors import RepriseError

NameRules = Sequence[tuple[str, str]]

_SWIN = "model.backbone.conv_encoder.model."
_BLOCK = r"^backbone\.0\.layers\.(\d+)\.blocks\.(\d+)\."
_TO_BLOCK = _SWIN + r"encoder.layers.\1.blocks.\2."
# Applied in this order, each to the result of the previous ones. {} stands for query, key and value.
_DINO_RULES: NameRules = (
    (r"^backbone\.0\.patch_embed\.proj\.", _SWIN + "embeddings.patch_embeddings.projection."),
    (r"^backbone\.0\.patch_embed\.norm\.", _SWIN + "embeddings.norm."),
    (r"^backbone\.0\.norm0\.", _SWIN + "hidden_states_norms.stage1."),
    (r"^backbone\.0\.norm1\.", _SWIN + "hidden_states_norms.stage2."),
    (r"^backbone\.0\.norm2\.", _SWIN + "hidden_states_norms.stage3."),
    (r"^backbone\.0\.norm3\.", _SWIN + "hidden_states_norms.stage4."),
    (_BLOCK + r"norm1\.", _TO_BLOCK + "layernorm_before."),
    (_BLOCK + r"norm2\.", _TO_BLOCK + "layernorm_after."),
    (_BLOCK + r"attn\.qkv\.", _TO_BLOCK + "attention.self.{}."),
    (_BLOCK + r"attn\.proj\.", _TO_BLOCK + "attention.output.dense."),
    (_BLOCK + r"attn\.relative", _TO_BLOCK + "attention.self.relative"),
    (_BLOCK + r"mlp\.fc1\.", _TO_BLOCK + "intermediate.dense."),
    (_BLOCK + r"mlp\.fc2\.", _TO_BLOCK + "output.dense."),
    (r"^backbone\.0\.layers\.(\d+)\.downsample\.", _SWIN + r"encoder.layers.\1.downsample."),
    (r"^bert\.", "model.text_backbone."),
    (r"^feat_map\.", "model.text_projection."),
    (r"^input_proj\.", "model.input_proj_vision."),
    (r"^transformer\.decoder\.bbox_embed\.", "bbox_embed."),
    (r"\.in_proj_", ".{}."),
    (r"^transformer\.encoder\.fusion_layers\.(\d+)\.", r"model.encoder.layers.\1.fusion_layer."),
    (r"gamma_v$", "vision_param"),
    (r"gamma_l$", "text_param"),
    (r"(fusion_layer\..*)_v(_proj)?\.", r"\1_vision\2."),
    (r"(fusion_layer\..*)_l(_proj)?\.", r"\1_text\2."),
    (r"(fusion_layer\.attn\.)v_proj\.", r"\1vision_proj."),
    (r"(fusion_layer\.attn\.)l_proj\.", r"\1text_proj."),
    (r"^transformer\.encoder\.layers\.(\d+)\.", r"model.encoder.layers.\1.deformable_layer."),
    (r"(deformable_layer\.)norm1\.", r"\1self_attn_layer_norm."),
    (r"(deformable_layer\.)norm2\.", r"\1final_layer_norm."),
    (r"^transformer\.encoder\.text_layers\.(\d+)\.", r"model.encoder.layers.\1.text_enhancer_layer."),
    (r"(text_enhancer_layer\.)norm1\.", r"\1layer_norm_before."),
    (r"(text_enhancer_layer\.)norm2\.", r"\1layer_norm_after."),
    (r"^(transformer\.decoder\.layers\.\d+\.)cross_attn\.", r"\1encoder_attn."),
    (r"^(transformer\.decoder\.layers\.\d+\.)ca_text\.", r"\1encoder_attn_text."),
    (r"^(transformer\.decoder\.layers\.\d+\.)catext_norm\.", r"\1encoder_attn_text_layer_norm."),
    (r"^(transformer\.decoder\.layers\.\d+\.)norm1\.", r"\1encoder_attn_layer_norm."),
    (r"^(transformer\.decoder\.layers\.\d+\.)norm2\.", r"\1self_attn_layer_norm."),
    (r"^(transformer\.decoder\.layers\.\d+\.)norm3\.", r"\1final_layer_norm."),
    (r"\.linear([12])\.", r".fc\1."),
    (r"^transformer\.decoder\.norm\.", "model.decoder.layer_norm."),
    (r"^transformer\.decoder\.ref_point_head\.", "model.decoder.reference_points_head."),
    (r"^transformer\.tgt_embed\.", "model.query_position_embeddings."),
    (r"^transformer\.enc_out_bbox_embed\.", "model.encoder_output_bbox_embed."),
    (r"^transformer\.", "model."),
)
_SAM_RULES: NameRules = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.blocks\.", ".layers."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (
        r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
        "shared_image_embedding.positional_embedding",
    ),
    (r"point_embeddings\.", "point_embed."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    # Heads of three layers, as in every published file.
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.0\.", r"\1.proj_in."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.1\.", r"\1.layers.0."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.2\.", r"\1.proj_out."),
)
_ORIGINAL_ONLY = (r"\.relative_position_index$", r"^bert\.pooler\.", r"position_ids$", r"^label_enc\.")


def convert_dino_to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert groundingdino-py's weights, name -> tensor, to those of `GroundingDinoForObjectDetection`."""
    return _convert_to_hf(state, _DINO_RULES)


def convert_dino_from_hf(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back. `like`: the state dict of the original model, for its names.

    Raises:
        RepriseError: a weight is not there.
    """
    return _convert_from_hf(state, like, _DINO_RULES)


def convert_sam_to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert segment-anything's weights, name -> tensor, to those of `SamModel`."""
    return _convert_to_hf(state, _SAM_RULES)


def convert_sam_from_hf(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back. `like`: the state dict of the original model, for its names.

    Raises:
        RepriseError: a weight is not there.
    """
    return _convert_from_hf(state, like, _SAM_RULES)


def _map_name(name: str, rules: NameRules) -> list[str]:
    """Return transformers' name of an original weight, or the three names of query, key and value."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return [name.format(part) for part in ("query", "key", "value")] if "{}" in name else [name]


def _is_original_only(name: str) -> bool:
    return any(re.search(pattern, name) for pattern in _ORIGINAL_ONLY)


def _convert_to_hf(state: Mapping[str, Tensor], rules: NameRules) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not _is_original_only(name):
            names = _map_name(name, rules)
            parts = tensor.chunk(len(names))
            # Weights are cloned, because safetensors refuses weights that share memory.
            made.update({other: part.clone() for other, part in zip(names, parts, strict=True)})
    return made


def _convert_from_hf(
    state: Mapping[str, Tensor], like: Mapping[str, Tensor], rules: NameRules
) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    alike: dict[tuple[str, ...], Tensor] = {}  # one weight with several names stays one in the file
    for name, tensor in like.items():
        if _is_original_only(name):
            made[name] = tensor.clone()
            continue
        # Box heads that share their weights are saved once.
        names = [
            each if each in state else re.sub(r"^bbox_embed\.\d+\.", "bbox_embed.0.", each)
            for each in _map_name(name, rules)
        ]
        absent = [each for each in names if each not in state]
        if absent:
            raise RepriseError(f"cannot convert: no weight {absent[0]}, which is {name} in the original")
        if tuple(names) not in alike:
            parts = [state[each] for each in names]
            alike[tuple(names)] = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
        made[name] = alike[tuple(names)]
    return made
