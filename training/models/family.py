"""What the loop, the tasks and the pipeline ask of a kind of model. One file a family: wan.py, cogvideox.py.

A family wraps no model: models stay stock diffusers classes, and everything that loads those loads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from training.config import ObjectiveConfig, PositionsConfig
from training.models.packing import SequenceLayout, SequenceShard, Size, pack_strip, slice_tokens
from training.models.sequence_attention import SequenceExchange
from training.models.shape import TransformerShape
from training.objectives import Objective, ObjectiveName

#: (diffusers' module name, ComfyUI's), with placeholders (lora/comfyui.py) for block numbers and the like.
ModuleNames = tuple[tuple[str, str], ...]


class VideoSize(NamedTuple):
    """A video's size: px, px, frames, frames per second."""

    height: int
    width: int
    frames: int
    fps: float


class ClipLengths(NamedTuple):
    """The rate and the lengths of clips that a release was trained on."""

    fps: float
    frames: tuple[int, ...]  # longest first


@dataclass(frozen=True)
class Conditioning:
    """What a prediction is conditioned on besides the noisy video."""

    # (B, L, D) as the transformer takes it, L as `Family.get_text_length`. Wan: zeros after the last token.
    text: Tensor
    # Clean latents (B or 1, C, 1, h_i, w_i), each of its own size, in order; a batch of 1 is repeated.
    references: tuple[Tensor, ...] = ()
    # Reference tokens that the network sees, ascending, counted over all references: (n,) or, for each
    # sample, (B, n) int64. None: all of them.
    keep: Tensor | None = None
    # The text begins with the trained token that stands for the subject (subject_token.py), if there is one.
    marked: bool = False


class Family(Protocol):
    """A kind of base model. It defines everything that differs between Wan and CogVideoX."""

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

        Args:
            model: a stock diffusers transformer; changed in place.
            positions: of the references; None: those that need no change of weights.
            references: how many references a model with `channel_concat` positions takes; other schemes
                ignore it.

        Raises:
            RepriseError: the model or the positions cannot be trained.
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
        """Predict the objective's target, only for the video.

        Args:
            model: prepared by `prepare_model`.
            noisy: (B, C, T, h, w), normalised latents.
            timestep: (B,) float32 in 0..1000, not rounded; references have it too (released).
            condition: text and references.
            positions: of the references.
            shard: this rank's part of each sequence. Every rank of a sequence group passes the same whole
                samples.
            dtype: of the computation; None: of the model's weights. Give it when weights are float32 and
                something (FSDP2) casts them for the forward pass.

        Returns:
            (B, C, T, h, w) in the type of the computation. With `shard` this rank's part of the video, a
            strip (B, C, p_t, p_h, p_w * n) with n >= 0. Compare it with `take_own_part` of the target, divide
            by the elements of the whole target, and sum losses and gradients over the group.
        """

    def get_layout(
        self, video: Tensor, condition: Conditioning, positions: PositionsConfig
    ) -> SequenceLayout:
        """Get the places of references and video in the sequence; video: (B, C, T, h, w)."""

    def list_blocks(self, model: nn.Module) -> list[nn.Module]:
        """List the blocks in order: what FSDP2 shards, checkpointing wraps and compile compiles.

        The self-attention of a block is its `attn1`.
        """

    def share_attention(self, model: nn.Module, exchange: SequenceExchange) -> None:
        """Make self-attention work on sequences that the workers of a group share; `model` is changed."""

    def make_objective(self, config: ObjectiveConfig, scheduler: Any = None) -> Objective:
        """Make the objective of the config; `auto` is what the family was pretrained with.

        Args:
            config: of the objective.
            scheduler: the model's diffusers scheduler, which v-prediction needs for its noise schedule.

        Raises:
            RepriseError: the family cannot predict the target of the config.
        """

    def has_token_timesteps(self, positions: PositionsConfig) -> bool:
        """Whether every token has its own timestep, and so its own modulation."""

    @staticmethod
    def get_default_scales(transformer: Mapping[str, Any]) -> tuple[int, int]:
        """Frames and pixels per latent of the published VAE that fits a transformer.

        Args:
            transformer: its config.
        """

    def get_clip_lengths(self, latent_channels: int) -> ClipLengths:
        """Which clips `reprise encode` makes where the config names no others.

        Args:
            latent_channels: of the VAE, which tells the releases of a family apart.
        """

    def get_text_length(self, transformer: Mapping[str, Any], tokenizer_limit: int | None = None) -> int:
        """To how many tokens prompts are padded, in encoding, training and generation alike.

        Args:
            transformer: its config.
            tokenizer_limit: `model_max_length` of the tokenizer; None: not known.
        """

    def embed_captions(
        self,
        captions: Sequence[str],
        encoder: nn.Module,
        tokenizer: Any,
        length: int,
        device: torch.device | None = None,
    ) -> list[Tensor]:
        """Embed captions as the family's own pipeline does: one (L, D) tensor each, L <= `length` tokens.

        Args:
            captions: one or more.
            encoder: of the text.
            tokenizer: of the encoder.
            length: of tokens to which captions are padded.
            device: on which the encoder computes; None: where its weights are. They differ where weights
                are moved to the device module by module.
        """

    def make_shape(self, transformer: Mapping[str, Any], text_tokens: int | None = None) -> TransformerShape:
        """Read the sizes that the transformer's cost depends on from its config.

        Args:
            transformer: its config.
            text_tokens: to which prompts are padded; None: as the released pipeline does.
        """

    def make_stock_inputs(
        self,
        model: nn.Module,
        tokens: int,
        batch: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        text: int | None = None,
        token_timesteps: bool = False,
    ) -> dict[str, Any]:
        """Make random arguments for the forward pass of a stock model, to measure its cost.

        Args:
            model: not prepared.
            tokens: of references and video, as one strip of patches.
            batch: samples.
            dtype: of the strip and the text.
            device: of all tensors.
            text: tokens of the text; None: as the released pipeline pads it.
            token_timesteps: give every token its own timestep.
        """


def take_own_part(
    family: Family,
    video: Tensor,
    condition: Conditioning,
    positions: PositionsConfig,
    shard: SequenceShard | None,
) -> Tensor:
    """Take the part of a video-shaped tensor (B, C, T, h, w) that `predict` returns on this rank."""
    if shard is None:
        return video
    place = family.get_layout(video, condition, positions)
    return slice_tokens(pack_strip([video], family.patch), place.get_own_video(shard), family.patch)
