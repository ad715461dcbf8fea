"""The sizes of Wan's transformer and its matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from training.models.shape import MatrixProduct, TransformerShape


@dataclass(frozen=True)
class WanShape(TransformerShape):
    """Wan: text is cross-attended and no part of the sequence."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], text_tokens: int) -> WanShape:
        """Read the config of a WanTransformer3DModel; what it leaves out has diffusers' defaults."""
        heads = config.get("num_attention_heads") or 40
        dim = heads * config.get("attention_head_dim", 128)
        first, height, width = config.get("patch_size", (1, 2, 2))
        channels = config.get("in_channels", 16)
        return cls(
            dim=dim,
            mlp=config.get("ffn_dim", 13824),
            heads=heads,
            layers=config.get("num_layers", 40),
            patch=(first, height, width),
            channels_in=channels,
            channels_out=config.get("out_channels") or channels,
            text_dim=config.get("text_dim", 4096),
            text_tokens=text_tokens,
            time_in=config.get("freq_dim", 256),
            time_dim=dim,
        )

    def iterate_products(
        self, tokens: int, *, text: int | None = None, timesteps: int = 1
    ) -> Iterator[MatrixProduct]:
        """See `TransformerShape.iterate_products`."""
        text = self.text_tokens if text is None else text
        n, d, f, layers = tokens, self.dim, self.mlp, self.layers
        volume = math.prod(self.patch)
        yield MatrixProduct("patches", 2 * n * d * self.channels_in * volume, backward=1, block=False)
        yield MatrixProduct("conditions", 2 * text * self.text_dim * d, backward=1, block=False)
        yield MatrixProduct("conditions", 2 * text * d * d, block=False)
        yield MatrixProduct("conditions", 2 * timesteps * self.time_in * d, backward=1, block=False)
        yield MatrixProduct("conditions", 2 * timesteps * (d * d + d * 6 * d), block=False)
        yield MatrixProduct("projections", layers * 4 * 2 * n * d * d)
        yield MatrixProduct("self-attention", layers * 2 * 2 * n * n * d)
        yield MatrixProduct(
            "cross-attention", layers * (2 * 2 * n * d * d + 2 * 2 * text * d * d + 2 * 2 * n * text * d)
        )
        yield MatrixProduct("mlp", layers * 2 * 2 * n * d * f)
        yield MatrixProduct("head", 2 * n * d * self.channels_out * volume, block=False)
