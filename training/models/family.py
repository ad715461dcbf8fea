"""What the loop, the tasks and the pipeline ask of a kind of model. One file a family: wan.py, cogvideox.py.

A family wraps no model: models stay stock diffusers classes, and everything that loads those loads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from training.config import ObjectiveConfig, PositionsConfig
from training.models.packing import SequenceLayout, SequenceShard, Size, pack_strip, slice_tokens
from training.objectives import Objective, ObjectiveName

#: (diffusers' module name, ComfyUI's), with placeholders (lora/comfyui.py) for block numbers and the like.
ModuleNames = tuple[tuple[str, str], ...]


class VideoSize(NamedTuple):
    """A video's size: px, px, frames, frames per second."""

    height: int
    width: int
    frames: int
    fps: float


@dataclass(frozen=True)
class Conditioning:
    """What a prediction is conditioned on besides the noisy video."""

    # (B, L, D) as the transformer takes it; L: text_length.py. Wan: zeros after the last token.
    text: Tensor
    # Clean latents (B or 1, C, 1, h_i, w_i), each of its own size, in order; a batch of 1 is repeated.
    references: tuple[Tensor, ...] = ()
    # Reference tokens that the network sees, ascending, counted over all references: (n,) or, for each
    # sample, (B, n) int64. None: all of them.
    keep: Tensor | None = None
    # The text begins with the trained token that speaks of the subject (subject_token.py), if there is one.
    marked: bool = False


class Family(Protocol):
    name: str  # "wan", "cogvideox"
    transformer: str  # its class in diffusers, for `components.load_transformer`
    objective: ObjectiveName  # what the family was pretrained with
    samples_posterior: bool  # a latent is a sample of the VAE's posterior (as released), else its mode
    default_size: VideoSize  # what the release makes
    lora_targets: tuple[str, ...]  # modules that LoRA adapts by default; each matches as a suffix
    comfyui_names: ModuleNames  # names of LoRA's modules in ComfyUI
    patch: Size  # (t, h, w), in latents
    temporal_scale: int  # frames per latent frame (after the first)
    spatial_scale: int  # pixels per latent

    def prepare_model(
        self, model: nn.Module, positions: PositionsConfig | None = None, references: int = 0
    ) -> None:
        """Make a stock model take references: once, before it is wrapped, sharded or optimised.

        references: how many a model with `channel_concat` positions shall take; of no meaning to the others.
        """

    def predict(
        self,
        model: nn.Module,
        noisy: Tensor,
        timestep: Tensor,
        condition: Conditioning,
        positions: PositionsConfig,
        *,
        shard: SequenceShard | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The network's answer for the video alone: (B, C, T, h, w), of the type it was computed in.

        noisy: (B, C, T, h, w); timestep: (B,) float32 in 0..1000, not rounded, of references too (released).
        dtype: of the computation; default: of the model's weights. Give it when weights are float32 and
        something (FSDP2) casts them for the forward pass.

        With `shard`, every rank of a sequence group passes the same whole sample and gets the answer for its
        own part of the video: a strip (B, C, p_t, p_h, p_w * n), n >= 0. Compare it with that part of the
        target (`own`), divide by the elements of the whole target, and *sum* losses and gradients over the
        group.
        """

    def get_layout(
        self, video: Tensor, condition: Conditioning, positions: PositionsConfig
    ) -> SequenceLayout:
        """Where references and video lie in the sequence; video: (B, C, T, h, w)."""

    def list_blocks(self, model: nn.Module) -> list[nn.Module]:
        """What FSDP2 shards, checkpointing wraps and compile compiles, in order (self-attention: attn1)."""

    def make_objective(self, config: ObjectiveConfig, scheduler: Any = None) -> Objective:
        """The objective of the config; `auto` is what the family was pretrained with.

        scheduler: the model's diffusers scheduler, where the objective needs its noise schedule.
        """


def take_own_part(
    family: Family,
    video: Tensor,
    condition: Conditioning,
    positions: PositionsConfig,
    shard: SequenceShard | None,
) -> Tensor:
    """The part of a video-shaped tensor (B, C, T, h, w) that `predict` answers for on this rank."""
    if shard is None:
        return video
    place = family.get_layout(video, condition, positions)
    return slice_tokens(pack_strip([video], family.patch), place.get_own_video(shard), family.patch)
