"""Self-attention of a sequence that several workers share (Ulysses, arXiv 2309.14509).

Each worker has a range of the tokens. Before attention the workers exchange tokens for heads: each gets all
tokens of its share of the heads. Afterwards they exchange back. Ranges may have any lengths, so no sequence
is padded or refused. Attention itself is an ordinary operation between the two exchanges: autograd keeps its
result, and any backend can compute it. (diffusers' own Ulysses computes native attention again in each
backward pass.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor
from torch.distributed import _functional_collectives as collectives


@dataclass
class SequenceExchange:
    """The sequence group of this worker, and how the current call is shared.

    One object is shared by all attention layers of a model. `counts` must keep its value until the backward
    pass is over, because activation checkpointing runs the layers again there.
    """

    group: dist.ProcessGroup
    rank: int
    counts: tuple[int, ...] = ()  # tokens of each worker, in the order of ranks

    def gather_tokens(self, own: Tensor) -> Tensor:
        """Exchange tokens for heads: (B, own tokens, H, d) -> (B, all tokens, H / workers, d)."""
        workers, tokens = len(self.counts), own.shape[1]
        batch, heads, width = own.shape[0], own.shape[2] // workers, own.shape[3]
        by_worker = own.unflatten(2, (workers, heads)).permute(2, 1, 0, 3, 4).flatten(0, 1)
        received = _exchange_rows(by_worker.flatten(1), self.counts, (tokens,) * workers, self.group)
        return received.unflatten(1, (batch, heads, width)).transpose(0, 1)

    def gather_heads(self, whole: Tensor) -> Tensor:
        """Exchange heads for tokens: (B, all tokens, H / workers, d) -> (B, own tokens, H, d)."""
        workers, tokens = len(self.counts), self.counts[self.rank]
        rows = whole.transpose(0, 1).flatten(1)
        received = _exchange_rows(rows, (tokens,) * workers, self.counts, self.group)
        shape = (workers, tokens, whole.shape[0], *whole.shape[2:])
        return received.reshape(shape).permute(2, 1, 0, 3, 4).flatten(2, 3)


def set_token_counts(model: Any, counts: Sequence[int]) -> None:
    """Set how many tokens each worker has in the next call of a model that `share_sequences` has prepared."""
    exchange: SequenceExchange | None = getattr(model, "exchange", None)
    if exchange is not None:
        exchange.counts = tuple(counts)


def compute_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    backend: Any,
    exchange: SequenceExchange | None,
) -> Tensor:
    """Compute attention by diffusers' dispatch, over the tokens of the whole sequence group.

    Args:
        query: (B, own tokens, H, d).
        key: as the query.
        value: as the query.
        mask: of attention; None: none.
        backend: of diffusers; None: its default.
        exchange: None: this worker has the whole sequence.

    Returns:
        (B, own tokens, H, d).
    """
    if exchange is None:
        return dispatch_attention_fn(query, key, value, attn_mask=mask, backend=backend)
    if mask is not None:
        raise ValueError("attention over a shared sequence takes no mask")
    query, key, value = (exchange.gather_tokens(part) for part in (query, key, value))
    return exchange.gather_heads(dispatch_attention_fn(query, key, value, backend=backend))


class _ExchangeRows(torch.autograd.Function):
    """All-to-all of rows (n, d), of any numbers for each worker."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, received: tuple[int, ...], sent: tuple[int, ...], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.received, ctx.sent, ctx.group = received, sent, group
        moved = collectives.all_to_all_single(rows.contiguous(), list(received), list(sent), group)
        return collectives.wait_tensor(moved)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchange_rows(gradient, ctx.sent, ctx.received, ctx.group), None, None, None


def _exchange_rows(
    rows: Tensor, received: tuple[int, ...], sent: tuple[int, ...], group: dist.ProcessGroup
) -> Tensor:
    moved: Tensor = _ExchangeRows.apply(rows, received, sent, group)
    return moved
