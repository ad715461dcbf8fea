"""The sizes of CogVideoX's transformer and its matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from training.models.shape import MatrixProduct, TransformerShape


@dataclass(frozen=True)
class CogVideoXShape(TransformerShape):
    """CogVideoX: text is part of the sequence, and attention is joint."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], text_tokens: int) -> CogVideoXShape:
        """Read the config of a CogVideoXTransformer3DModel; what it leaves out has diffusers' defaults."""
        heads = config.get("num_attention_heads") or 30
        dim = heads * config.get("attention_head_dim", 64)
        patch = config.get("patch_size", 2)
        return cls(
            dim=dim,
            mlp=4 * dim,
            heads=heads,
            layers=config.get("num_layers", 30),
            patch=(config.get("patch_size_t") or 1, patch, patch),
            channels_in=config.get("in_channels", 16),
            channels_out=config.get("out_channels") or config.get("in_channels", 16),
            text_dim=config.get("text_embed_dim", 4096),
            text_tokens=text_tokens,
            time_in=dim,
            time_dim=config.get("time_embed_dim", 512),
        )

    def iterate_products(
        self, tokens: int, *, text: int | None = None, timesteps: int = 1
    ) -> Iterator[MatrixProduct]:
        """See `TransformerShape.iterate_products`."""
        text = self.text_tokens if text is None else text
        n, d, f, layers = tokens, self.dim, self.mlp, self.layers
        m = n + text
        time_in, time_dim = self.time_in, self.time_dim
        volume = math.prod(self.patch)
        yield MatrixProduct("patches", 2 * n * d * self.channels_in * volume, backward=1, block=False)
        yield MatrixProduct("conditions", 2 * text * self.text_dim * d, backward=1, block=False)
        yield MatrixProduct("conditions", 2 * timesteps * time_in * time_dim, backward=1, block=False)
        yield MatrixProduct("conditions", 2 * timesteps * time_dim**2, block=False)
        yield MatrixProduct("conditions", layers * 2 * 2 * timesteps * time_dim * 6 * d)
        yield MatrixProduct("projections", layers * 4 * 2 * m * d * d)
        yield MatrixProduct("self-attention", layers * 2 * 2 * m * m * d)
        yield MatrixProduct("mlp", layers * 2 * 2 * m * d * f)
        yield MatrixProduct("head", 2 * timesteps * time_dim * 2 * d, block=False)
        yield MatrixProduct("head", 2 * n * d * self.channels_out * volume, block=False)
