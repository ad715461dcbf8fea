"""Captions -> text embeddings, in the two ways of the released pipelines."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

RELEASED_WAN_LENGTH, RELEASED_COGVIDEOX_LENGTH = 512, 226  # tokens to which the released pipelines pad


def embed_masked_captions(
    captions: Sequence[str],
    encoder: nn.Module,
    tokenizer: Any,
    length: int,
    device: torch.device | None = None,
) -> list[Tensor]:
    """Embed captions as Wan does: padding is masked in the encoder, and cut off here.

    Args:
        captions: one or more.
        encoder: of the text.
        tokenizer: of the encoder.
        length: of tokens to which captions are padded.
        device: on which the encoder computes; None: where its weights are.

    Returns:
        One (L, D) tensor for each caption, L <= `length` tokens, on the encoder's device and of its type. The
        transformer wants zeros from L up to `length`.
    """
    tokens = _tokenize_captions([clean_caption(caption) for caption in captions], tokenizer, length)
    device = device or next(encoder.parameters()).device
    ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
    with torch.no_grad():
        hidden = encoder(ids, mask).last_hidden_state
    return [row[:count] for row, count in zip(hidden, mask.gt(0).sum(dim=1).tolist(), strict=True)]


def embed_padded_captions(
    captions: Sequence[str],
    encoder: nn.Module,
    tokenizer: Any,
    length: int,
    device: torch.device | None = None,
) -> list[Tensor]:
    """Embed captions as CogVideoX does: padding is not masked and is part of the embedding.

    The arguments are those of `embed_masked_captions`.

    Returns:
        One (`length`, D) tensor for each caption, on the encoder's device and of its type.
    """
    tokens = _tokenize_captions(list(captions), tokenizer, length)
    device = device or next(encoder.parameters()).device
    with torch.no_grad():
        return list(encoder(tokens.input_ids.to(device))[0])


def limit_text_length(length: int, tokenizer_limit: int | None) -> int:
    """Pad to `length` tokens, or to fewer where the tokenizer takes fewer; None: its limit is not known."""
    return length if tokenizer_limit is None else min(length, int(tokenizer_limit))


def clean_caption(caption: str) -> str:
    """Clean a caption as Wan's pipeline does: repair Unicode, resolve HTML entities, collapse white space."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(caption)))
    return re.sub(r"\s+", " ", text).strip()


def _tokenize_captions(captions: list[str], tokenizer: Any, length: int) -> Any:
    return tokenizer(
        captions,
        padding="max_length",
        max_length=length,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
