"""Adaptive norms of CogVideoX whose LoRA acts only on reference tokens, as proxy replay describes it.

The paper (3.4): "updating LN layers only for X_in while keeping them frozen for X_out and C_T". The released
code never reads the switch that should do so (docs/proxy-replay.md). Here the frozen weights modulate the
video and the text, and the frozen weights plus LoRA modulate references.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.models.cogvideox import ReferenceTokens


class ReferenceModulation(nn.Module):
    """Replaces a block's CogVideoXLayerNormZero.

    It has the same submodules, so the names of the weights stay.
    """

    def __init__(self, stock: nn.Module, tokens: ReferenceTokens) -> None:
        super().__init__()
        self.silu = stock.silu
        self.linear = stock.linear
        self.norm = stock.norm
        self.tokens = tokens

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalise and modulate tokens and text.

        Args:
            hidden_states: (B, N, D) reference tokens, then video tokens.
            encoder_hidden_states: (B, L, D) text.
            temb: (B, E) embedding of the timestep.

        Returns:
            Tokens, text, gate of the tokens, gate of the text. The gate of the tokens is (B, N, D) with
            references, else (B, 1, D) as in the stock norm.
        """
        time = self.silu(temb)
        frozen = self.linear.base_layer(time) if hasattr(self.linear, "base_layer") else self.linear(time)
        shift, scale, gate, text_shift, text_scale, text_gate = (
            part[:, None, :] for part in frozen.chunk(6, dim=1)
        )
        text = self.norm(encoder_hidden_states) * (1 + text_scale) + text_shift
        count = self.tokens.count
        if count == 0:
            return self.norm(hidden_states) * (1 + scale) + shift, text, gate, text_gate
        ours = (part[:, None, :] for part in self.linear(time).chunk(6, dim=1)[:3])
        reference_shift, reference_scale, reference_gate = ours
        normed = self.norm(hidden_states)
        references, video = normed[:, :count], normed[:, count:]
        tokens = torch.cat(
            [references * (1 + reference_scale) + reference_shift, video * (1 + scale) + shift], dim=1
        )
        gates = torch.cat([reference_gate.expand(-1, count, -1), gate.expand(-1, video.shape[1], -1)], dim=1)
        return tokens, text, gates, text_gate
