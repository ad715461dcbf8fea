"""Captions -> text embeddings, as each family's own pipeline makes them."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def embed_captions(
    captions: Sequence[str], encoder: nn.Module, tokenizer: Any, family: str, length: int
) -> list[Tensor]:
    """One (L, D) tensor per caption, on the encoder's device and of its type, L <= `length` tokens.

    Wan: padding is masked, and cut off here; the transformer wants zeros in its place, up to `length`.
    CogVideoX: padding is not masked and is part of the embedding, so L is always `length`.
    """
    device = next(encoder.parameters()).device
    clean = [clean_text(caption) if family == "wan" else caption for caption in captions]
    tokens = tokenizer(
        clean,
        padding="max_length",
        max_length=length,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
    with torch.no_grad():
        if family == "cogvideox":
            return list(encoder(ids)[0])
        hidden = encoder(ids, mask).last_hidden_state
    return [row[:count] for row, count in zip(hidden, mask.gt(0).sum(dim=1).tolist(), strict=True)]


def clean_text(caption: str) -> str:
    """As Wan's pipeline does: broken Unicode mended, HTML entities resolved, white space collapsed."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(caption)))
    return re.sub(r"\s+", " ", text).strip()
