"""To how many tokens a model's prompts are padded: one rule for encoding, training and generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RELEASED_LENGTHS = {"wan": 512, "cogvideox": 226}  # of the released pipelines, by family


def get_text_length(family: str, transformer: Mapping[str, Any], tokenizer_limit: int | None = None) -> int:
    """That of the released pipeline, or less where the tokenizer takes less.

    Args:
        transformer: its config, which may say another number for CogVideoX (`max_text_seq_length`).
        tokenizer_limit: `model_max_length` of the tokenizer; None: not known.
    """
    length = RELEASED_LENGTHS[family]
    if family == "cogvideox":
        length = int(transformer.get("max_text_seq_length", length))
    return length if tokenizer_limit is None else min(length, int(tokenizer_limit))
