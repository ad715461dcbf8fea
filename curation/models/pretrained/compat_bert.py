"""groundingdino-py's text encoder for every version of transformers.

Its `BertModelWarper` calls methods of `BertModel` that transformers 5 removed. They only run BERT's own
layers with a mask that lists for every token the tokens that it attends to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class BertTextEncoder(nn.Module):
    """Replaces groundingdino-py's `bertwarper.BertModelWarper`, with the same parameter names."""

    def __init__(self, bert_model: Any) -> None:
        super().__init__()
        self.config = bert_model.config
        # Eager attention accepts an additive float mask. Other kinds need a mask made by BertModel.forward.
        self.config._attn_implementation = "eager"
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder
        self.pooler = bert_model.pooler

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the token features of a batch of texts.

        Args:
            input_ids: (texts, tokens) int64.
            attention_mask: (texts, tokens, tokens), true or 1 where a token attends to another; or (texts,
                tokens), the same for every token.
            token_type_ids: (texts, tokens) int64.
            position_ids: (texts, tokens) int64.

        Returns:
            `last_hidden_state`: (texts, tokens, width).
        """
        embedded = self.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids
        )
        seen = attention_mask[:, None] if attention_mask.ndim == 3 else attention_mask[:, None, None]
        additive = (1.0 - seen.to(embedded.dtype)) * torch.finfo(embedded.dtype).min
        return {"last_hidden_state": self.encoder(embedded, attention_mask=additive)[0]}
