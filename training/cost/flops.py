"""Floating-point operations of a training step, counted exactly from sizes; multiply and add are two.

Only matrix products count, as in `torch.utils.flop_counter` and in every published MFU. `count_training` is
what the model needs, forward and backward. What activation checkpointing computes again is in
`count_recomputed` alone: a run is not faster for computing more.
"""

from __future__ import annotations

from typing import Literal

from training.models.shape import TransformerShape

#: What the backward pass computes again, as `compute.checkpointing` of the config.
Checkpointing = Literal["none", "selective", "full"]


def count_forward(
    shape: TransformerShape, tokens: int, *, text: int | None = None, timesteps: int = 1
) -> int:
    """Count the FLOPs of the forward pass of one sample; see `TransformerShape.iterate_products`."""
    return sum(each.forward for each in shape.iterate_products(tokens, text=text, timesteps=timesteps))


def count_training(
    shape: TransformerShape, tokens: int, *, text: int | None = None, timesteps: int = 1, frozen: bool = False
) -> int:
    """Count the FLOPs of the forward and backward pass of one sample.

    Args:
        shape: of the transformer.
        tokens: of the whole sequence.
        text: tokens of the text; None: those of the shape.
        timesteps: how many are embedded.
        frozen: only adapters are trained (LoRA): gradients pass through weights, but weights get none. The
            adapters' own products are left out: a tenth more at rank 128 on all layers of CogVideoX-5B.
    """
    total = 0
    for each in shape.iterate_products(tokens, text=text, timesteps=timesteps):
        two_factors = each.part == "self-attention"
        backward = min(each.backward, 1) if frozen and not two_factors else each.backward
        total += each.forward * (1 + backward)
    return total


def count_recomputed(
    shape: TransformerShape, tokens: int, checkpointing: Checkpointing, *, text: int | None = None
) -> int:
    """Count the FLOPs that activation checkpointing computes again for one sample; 0 unless it is "full"."""
    if checkpointing != "full":
        return 0
    return sum(each.forward for each in shape.iterate_products(tokens, text=text) if each.block)


def compute_part_shares(shape: TransformerShape, tokens: int, *, text: int | None = None) -> dict[str, float]:
    """Compute the share of each part of the model in the FLOPs of a forward pass."""
    shares: dict[str, int] = {}
    for each in shape.iterate_products(tokens, text=text):
        shares[each.part] = shares.get(each.part, 0) + each.forward
    total = sum(shares.values())
    return {part: count / total for part, count in shares.items()}
