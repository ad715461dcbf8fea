"""Tiny transformers of each family, by the configs of their stock classes."""

from __future__ import annotations

from typing import Any

WAN: dict[str, Any] = {
    "_class_name": "WanTransformer3DModel",
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "ffn_dim": 96,
    "num_layers": 4,
    "text_dim": 40,
    "freq_dim": 32,
}
COGVIDEOX: dict[str, Any] = {
    "_class_name": "CogVideoXTransformer3DModel",
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "num_layers": 4,
    "text_embed_dim": 40,
    "time_embed_dim": 48,
    "max_text_seq_length": 20,
    "use_rotary_positional_embeddings": True,
}
