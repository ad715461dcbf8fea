"""Kaleido's weights in three layouts, SAT (released), Wan's original, diffusers: names and shapes.

Kaleido is exactly the Wan 2.1 text-to-video transformer: references add no parameter. The layouts differ in
names, and SAT stacks q, k, v (self-attention) and k, v (cross-attention) along the rows. Conversions copy
values bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reprise.errors import RepriseError

WeightLayout = Literal["sat", "wan", "diffusers"]

SAT_PREFIX = "model.diffusion_model."
_MIXIN = "mixins.adaln_layer"
_LAYER = "transformer.layers.{i}"

# (SAT, Wan original, diffusers); {i} is the block. SAT stacks a tuple into one tensor, in this order.
_Names = str | tuple[str, ...]
_MODULES: tuple[tuple[str, _Names, _Names], ...] = (
    ("mixins.patch_embed.proj", "patch_embedding", "patch_embedding"),
    ("text_embedding.0", "text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embed.0", "time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embed.2", "time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("adaln_projection.1", "time_projection.1", "condition_embedder.time_proj"),
    ("mixins.final_layer.linear", "head.head", "proj_out"),
    (
        f"{_LAYER}.attention.query_key_value",
        ("blocks.{i}.self_attn.q", "blocks.{i}.self_attn.k", "blocks.{i}.self_attn.v"),
        ("blocks.{i}.attn1.to_q", "blocks.{i}.attn1.to_k", "blocks.{i}.attn1.to_v"),
    ),
    (f"{_LAYER}.attention.dense", "blocks.{i}.self_attn.o", "blocks.{i}.attn1.to_out.0"),
    (f"{_LAYER}.cross_attention.query", "blocks.{i}.cross_attn.q", "blocks.{i}.attn2.to_q"),
    (
        f"{_LAYER}.cross_attention.key_value",
        ("blocks.{i}.cross_attn.k", "blocks.{i}.cross_attn.v"),
        ("blocks.{i}.attn2.to_k", "blocks.{i}.attn2.to_v"),
    ),
    (f"{_LAYER}.cross_attention.dense", "blocks.{i}.cross_attn.o", "blocks.{i}.attn2.to_out.0"),
    # The name misleads: it is the norm before cross-attention.
    (f"{_LAYER}.post_cross_attention_layernorm", "blocks.{i}.norm3", "blocks.{i}.norm2"),
    (f"{_LAYER}.mlp.dense_h_to_4h", "blocks.{i}.ffn.0", "blocks.{i}.ffn.net.0.proj"),
    (f"{_LAYER}.mlp.dense_4h_to_h", "blocks.{i}.ffn.2", "blocks.{i}.ffn.net.2"),
)
_NORMS: tuple[tuple[str, str, str], ...] = (  # only a weight
    (f"{_MIXIN}.query_layernorm_list.{{i}}", "blocks.{i}.self_attn.norm_q", "blocks.{i}.attn1.norm_q"),
    (f"{_MIXIN}.key_layernorm_list.{{i}}", "blocks.{i}.self_attn.norm_k", "blocks.{i}.attn1.norm_k"),
    (f"{_MIXIN}.cross_query_layernorm_list.{{i}}", "blocks.{i}.cross_attn.norm_q", "blocks.{i}.attn2.norm_q"),
    (f"{_MIXIN}.cross_key_layernorm_list.{{i}}", "blocks.{i}.cross_attn.norm_k", "blocks.{i}.attn2.norm_k"),
)
_PARAMETERS: tuple[tuple[str, str, str], ...] = (  # tensors without a suffix
    ("mixins.final_layer.adaLN_modulation", "head.modulation", "scale_shift_table"),
    (f"{_MIXIN}.adaLN_modulations.{{i}}", "blocks.{i}.modulation", "blocks.{i}.scale_shift_table"),
)
_BLOCK_PATTERNS: dict[WeightLayout, re.Pattern[str]] = {
    "sat": re.compile(r"transformer\.layers\.(\d+)\."),
    "wan": re.compile(r"blocks\.(\d+)\."),
    "diffusers": re.compile(r"blocks\.(\d+)\."),
}


@dataclass(frozen=True)
class TensorNames:
    """One tensor of the SAT layout and what it is in the others."""

    sat: str
    wan: tuple[str, ...]
    diffusers: tuple[str, ...]

    def get_names(self, layout: WeightLayout) -> tuple[str, ...]:
        """Return its names in a layout."""
        return (self.sat,) if layout == "sat" else self.wan if layout == "wan" else self.diffusers


def list_tensors(blocks: int) -> list[TensorNames]:
    """List every tensor of a model with this number of blocks."""
    rows: list[tuple[str, _Names, _Names]] = [
        *(
            (f"{sat}{kind}", _add_suffix(wan, kind), _add_suffix(own, kind))
            for sat, wan, own in _MODULES
            for kind in _SUFFIXES
        ),
        *((f"{sat}.weight", f"{wan}.weight", f"{own}.weight") for sat, wan, own in _NORMS),
        *_PARAMETERS,
    ]
    found = []
    for sat, wan, own in rows:
        for i in range(blocks if "{i}" in sat else 1):
            names = (_fill_block(wan, i), _fill_block(own, i))
            found.append(TensorNames(SAT_PREFIX + sat.format(i=i), *names))
    return found


def detect_layout(keys: Iterable[str]) -> WeightLayout:
    """Detect the layout of a checkpoint by its keys.

    Raises:
        RepriseError: it is of another model.
    """
    names = set(keys)
    if f"{SAT_PREFIX}mixins.final_layer.linear.weight" in names:
        return "sat"
    if "head.head.weight" in names and "patch_embedding.weight" in names:
        return "wan"
    if "proj_out.weight" in names and "condition_embedder.time_proj.weight" in names:
        return "diffusers"
    some = ", ".join(sorted(names)[:3]) or "no tensor at all"
    raise RepriseError(
        f"not a Kaleido or Wan transformer: it holds {some}, ...; expected SAT keys ({SAT_PREFIX}...), Wan's "
        "original ones (patch_embedding, blocks.0.self_attn...) or diffusers' (blocks.0.attn1...)"
    )


def plan_conversion(keys: Iterable[str]) -> tuple[WeightLayout, list[TensorNames], list[str]]:
    """Return layout, tensors and unknown keys of a checkpoint.

    Unknown keys, such as those of a text encoder or VAE, are reported and are no error: the official loader
    is not strict either.

    Raises:
        RepriseError: tensors are missing.
    """
    names = set(keys)
    layout = detect_layout(names)
    blocks = 1 + max(
        (int(found[1]) for name in names if (found := _BLOCK_PATTERNS[layout].search(name))), default=-1
    )
    wanted = list_tensors(blocks)
    expected = {name for entry in wanted for name in entry.get_names(layout)}
    missing = sorted(expected - names)
    if missing:
        raise RepriseError(
            f"the checkpoint ({layout} layout, {blocks} blocks) lacks {len(missing)} of {len(expected)} "
            f"tensors, first {missing[0]}; it is incomplete or of another model"
        )
    return layout, wanted, sorted(names - expected)


def convert_tensor(
    entry: TensorNames, source: WeightLayout, to: WeightLayout, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Convert one tensor to another layout: names -> tensors. Only q/k/v are split or stacked, and copied."""
    parts = [tensors[name] for name in entry.get_names(source)]
    names = entry.get_names(to)
    if len(parts) > len(names):
        parts = [torch.cat(parts)]
    elif len(parts) < len(names):
        parts = list(parts[0].chunk(len(names)))
    return dict(zip(names, parts, strict=True))


def convert_state_dict(tensors: Mapping[str, Tensor], to: WeightLayout) -> dict[str, Tensor]:
    """Convert a state dict (or its gradients) to another layout, without unknown keys (`plan_conversion`)."""
    source, wanted, _ = plan_conversion(tensors)
    converted: dict[str, Tensor] = {}
    for entry in wanted:
        converted.update(convert_tensor(entry, source, to, tensors))
    return converted


_SUFFIXES = (".weight", ".bias")


def _add_suffix(names: _Names, suffix: str) -> _Names:
    return names + suffix if isinstance(names, str) else tuple(name + suffix for name in names)


def _fill_block(names: _Names, i: int) -> tuple[str, ...]:
    return tuple(name.format(i=i) for name in ((names,) if isinstance(names, str) else names))
