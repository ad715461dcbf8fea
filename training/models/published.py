"""Configs of published transformers and VAEs, so that sizes are known without a download.

They have the values that differ from the defaults of the diffusers class, and the main sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.config import ModelConfig
from training.models.build import make_family
from training.models.components import check_one_transformer, find_config, read_config, read_tokenizer_limit
from training.models.shape import TransformerShape

# hub id -> transformer/config.json
PUBLISHED: dict[str, dict[str, Any]] = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {
        "_class_name": "WanTransformer3DModel",
        "num_attention_heads": 12,
        "attention_head_dim": 128,
        "ffn_dim": 8960,
        "num_layers": 30,
    },
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": {
        "_class_name": "WanTransformer3DModel",
        "num_attention_heads": 40,
        "attention_head_dim": 128,
        "ffn_dim": 13824,
        "num_layers": 40,
    },
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": {
        "_class_name": "WanTransformer3DModel",
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "ffn_dim": 14336,
        "num_layers": 30,
        "in_channels": 48,
        "out_channels": 48,
    },
    "THUDM/CogVideoX-2b": {
        "_class_name": "CogVideoXTransformer3DModel",
        "num_attention_heads": 30,
        "num_layers": 30,
        "use_rotary_positional_embeddings": False,
    },
    "THUDM/CogVideoX-5b": {
        "_class_name": "CogVideoXTransformer3DModel",
        "num_attention_heads": 48,
        "num_layers": 42,
        "use_rotary_positional_embeddings": True,
    },
}

# hub id -> vae/config.json, what differs from the class's defaults
_WAN_2_2 = {
    "_class_name": "AutoencoderKLWan",
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "in_channels": 12,
    "out_channels": 12,
    "is_residual": True,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    # One for each channel; their values do not matter for sizes.
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
VAE_CONFIGS: dict[str, dict[str, Any]] = {
    name: _WAN_2_2
    if "Wan2.2" in name
    else {"_class_name": "AutoencoderKLWan" if "Wan" in name else "AutoencoderKLCogVideoX"}
    for name in PUBLISHED
}


def get_transformer_config(model: ModelConfig) -> dict[str, Any]:
    """Get the config of a model's transformer: of its folder, of `PUBLISHED`, else of the hub.

    Raises:
        RepriseError: there is none, or more than one.
    """
    if _is_published(model):
        return dict(PUBLISHED[model.path])
    transformer = read_config(model.path, model.revision, "transformer")
    check_one_transformer(model.path, model.revision)
    return transformer


def get_vae_config(model: ModelConfig) -> dict[str, Any] | None:
    """Get the config of a model's VAE, from where `get_transformer_config` reads; None: there is no VAE."""
    if _is_published(model):
        return VAE_CONFIGS[model.path]
    return find_config(model.path, model.revision, "vae")


def get_model_shape(model: ModelConfig, transformer: Mapping[str, Any]) -> TransformerShape:
    """Get the sizes that a step's cost depends on, with texts as long as the tokenizer takes.

    Args:
        model: of the config.
        transformer: config of its transformer, as it is trained.

    Raises:
        RepriseError: no model family is known for the transformer.
    """
    family = make_family(transformer, path=model.path)
    if _is_published(model):  # their tokenizers take what the released pipelines pad to
        return family.make_shape(transformer)
    limit = read_tokenizer_limit(model.path, model.revision)
    return family.make_shape(transformer, family.get_text_length(transformer, limit))


def _is_published(model: ModelConfig) -> bool:
    return model.path in PUBLISHED and not Path(model.path).is_dir()
