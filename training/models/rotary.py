"""Rotation of queries and keys by their positions."""

from __future__ import annotations

import torch
from torch import Tensor

RotaryTables = tuple[Tensor, Tensor]  # cos and sin, (1 or B, N, d) float32, each value twice


def rotate_pairs(x: Tensor, tables: RotaryTables) -> Tensor:
    """Rotate pairs of neighbouring channels: x (B, N, heads, d), tables (1 or B, N, d) float32."""
    cos, sin = (table[:, :, None] for table in tables)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (x.float() * cos + turned * sin).to(x.dtype)
