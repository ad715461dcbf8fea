"""Wan 2.1 and 2.2 (WanTransformer3DModel) with references as clean frames at other rotary positions.

The stock forward runs on a strip of patches (packing.py). Two small modules without weights are replaced: the
rotary embedding returns the tables of the current call, and the sinusoid of the timestep is computed in
float64, as in the official code (diffusers' float32 moves outputs by 3e-5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from reprise.errors import RepriseError
from training.config import ObjectiveConfig, PositionsConfig
from training.models.family import ClipLengths, Conditioning, ModuleNames, VideoSize
from training.models.packing import (
    SequenceLayout,
    SequenceShard,
    Size,
    count_patches,
    make_layout,
    pack_strip,
    select_tokens,
    slice_tokens,
    unpack_strip,
)
from training.models.rotary import rotate_pairs
from training.models.sequence_attention import SequenceExchange, compute_attention, set_token_counts
from training.models.shape import TransformerShape
from training.models.subject_token import reserve_token
from training.models.text import RELEASED_WAN_LENGTH, embed_masked_captions, limit_text_length
from training.models.wan_shape import WanShape
from training.objectives import FlowMatching, Objective, ObjectiveName
from training.positions import make_rotary_tables, make_sequence_positions, split_wan_head


class ReferenceRope(nn.Module):
    """Replaces the rotary embedding of a Wan model: returns the tables that were set for this call."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: tuple[Tensor, Tensor] | None = None  # (1, tokens, 1, head_dim) each

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin of the current call."""
        if self.tables is None:
            raise RuntimeError("a Wan model prepared for references is called through WanFamily.predict")
        return self.tables


class TimestepSinusoid(nn.Module):
    """[cos | sin] of timestep x frequency, in float64: (n,) -> (n, channels) float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, timesteps: Tensor) -> Tensor:
        """(n,) timesteps -> (n, channels) float32."""
        # MPS has no float64.
        exact = torch.float32 if timesteps.device.type == "mps" else torch.float64
        half = self.channels // 2
        exponent = torch.arange(half, dtype=exact, device=timesteps.device) / half
        angle = timesteps.to(exact)[:, None] * torch.pow(10_000.0, -exponent)
        return torch.cat([angle.cos(), angle.sin()], dim=-1).float()


class WanSequenceAttention:
    """Self-attention of Wan over a sequence that several workers share.

    The same as diffusers' WanAttnProcessor on whole sequences.
    """

    _attention_backend = None  # set from outside, as diffusers does on its own processors

    def __init__(self, exchange: SequenceExchange) -> None:
        """Take the sequence group."""
        self.exchange = exchange

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B, own tokens, D) -> the same after attention."""
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states))
        query, key, value = (
            part.unflatten(2, (attn.heads, -1)) for part in (query, key, attn.to_v(hidden_states))
        )
        if rotary_emb is not None:
            tables = rotary_emb[0][:, :, 0], rotary_emb[1][:, :, 0]
            query, key = rotate_pairs(query, tables), rotate_pairs(key, tables)
        output = compute_attention(query, key, value, attention_mask, self._attention_backend, self.exchange)
        return attn.to_out[1](attn.to_out[0](output.flatten(2).type_as(query)))


_TI2V_CHANNELS = 48  # of the VAE of Wan 2.2 TI2V


class WanFamily:
    """Wan 2.1 (Kaleido) and Wan 2.2 TI2V."""

    name = "wan"
    transformer = "WanTransformer3DModel"
    objective: ObjectiveName = "flow_matching"
    samples_posterior = False
    default_size = VideoSize(480, 832, 81, 16.0)
    # Wan modulates by a table per block and has no linear to adapt there.
    lora_targets: tuple[str, ...] = ("to_k", "to_q", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
    # The names of Wan's official code.
    comfyui_names: ModuleNames = (
        ("blocks.#.attn1.to_$", "blocks.#.self_attn.$"),
        ("blocks.#.attn1.to_out.0", "blocks.#.self_attn.o"),
        ("blocks.#.attn2.to_$", "blocks.#.cross_attn.$"),
        ("blocks.#.attn2.to_out.0", "blocks.#.cross_attn.o"),
        ("blocks.#.ffn.net.0.proj", "blocks.#.ffn.0"),
        ("blocks.#.ffn.net.2", "blocks.#.ffn.2"),
        ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
        ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
        ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("proj_out", "head.head"),
        ("patch_embedding", "patch_embedding"),
    )

    def __init__(self, patch: Size = (1, 2, 2), temporal_scale: int = 4, spatial_scale: int = 8) -> None:
        """Defaults are Wan 2.1's; Wan 2.2 TI2V-5B has a spatial scale of 16."""
        self.patch = patch
        self.temporal_scale = temporal_scale
        self.spatial_scale = spatial_scale

    def prepare_model(
        self, model: nn.Module, positions: PositionsConfig | None = None, references: int = 0
    ) -> None:
        """See `Family.prepare_model`."""
        if tuple(model.config.patch_size) != self.patch:
            raise RepriseError(f"the model's patches are {tuple(model.config.patch_size)}, not {self.patch}")
        model.rope = ReferenceRope()
        model.condition_embedder.timesteps_proj = TimestepSinusoid(model.config.freq_dim)
        if positions is not None and positions.scheme == "channel_concat":
            widen_patch_embedding(model, references)

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
        reference_timestep: Tensor | None = None,
    ) -> Tensor:
        """See `Family.predict`. Wan also takes timesteps per token, as Wan 2.2 TI2V was trained.

        Args:
            model: see `Family.predict`, also for the arguments that are not listed here.
            noisy: (B, C, T, h, w).
            timestep: (B,); or (B, tokens), in the order of the sequence; or (B, T), one for each
                latent frame of the video, with `reference_timestep`.
            condition: text and references.
            positions: of the references.
            shard: this rank's part.
            dtype: of the computation.
            reference_timestep: (B,), of all reference tokens; 0: they are clean.
        """
        weight = model.patch_embedding.weight
        dtype = dtype if dtype is not None else weight.dtype
        parts, place = self._build_sequence(model, noisy, condition, positions)
        strip = pack_strip([part.to(dtype) for part in parts], self.patch)
        tables = _make_tables(place, positions, model.config.attention_head_dim, str(noisy.device))
        if condition.keep is not None:
            visible = place.select_visible_tokens(condition.keep)
            strip = select_tokens(strip, visible, self.patch)
            tables = tuple(table[0][visible] if visible.ndim == 2 else table[:, visible] for table in tables)
            place = place.keep_reference_tokens(condition.keep.shape[-1])
        if reference_timestep is None and positions.reference_time == "zero":
            reference_timestep = timestep.new_zeros(timestep.shape[0])
        steps = self._expand_timesteps(timestep, reference_timestep, place)
        if shard is not None:
            own = shard.get_token_range(place.total_tokens)
            set_token_counts(model, shard.count_tokens(place.total_tokens))
            strip = slice_tokens(strip, own, self.patch)
            tables = tuple(table[:, own.start : own.stop] for table in tables)
            steps = steps[:, own.start : own.stop] if steps.ndim == 2 else steps
        model.rope.tables = tables
        text = reserve_token(model, condition.text.to(dtype), condition.marked)
        output = model(strip, steps, text, return_dict=False)[0]
        if shard is None:
            return unpack_strip(output, place.sizes, self.patch)[place.video_index]
        # Video tokens are contiguous, so this rank's are contiguous, too.
        first = min(max(place.video_tokens.start - own.start, 0), len(own))
        return slice_tokens(output, range(first, first + len(place.get_own_video(shard))), self.patch)

    def get_layout(
        self, video: Tensor, condition: Conditioning, positions: PositionsConfig
    ) -> SequenceLayout:
        """See `Family.get_layout`."""
        whole = self._get_full_layout(video, condition, positions)
        return whole if condition.keep is None else whole.keep_reference_tokens(condition.keep.shape[-1])

    def _get_full_layout(
        self, video: Tensor, condition: Conditioning, positions: PositionsConfig
    ) -> SequenceLayout:
        """The same before any reference token was dropped."""
        references = () if positions.scheme == "channel_concat" else condition.references
        if positions.scheme == "channel_concat" and condition.keep is not None:
            raise RepriseError("channel_concat has no reference tokens that could be dropped")
        return make_layout(
            [_get_size(part) for part in references],
            _get_size(video),
            self.patch,
            video_first=positions.place == "after",
        )

    def list_blocks(self, model: nn.Module) -> list[nn.Module]:
        """See `Family.list_blocks`."""
        return list(model.blocks)

    def share_attention(self, model: nn.Module, exchange: SequenceExchange) -> None:
        """See `Family.share_attention`."""
        for block in self.list_blocks(model):
            block.attn1.set_processor(WanSequenceAttention(exchange))

    def make_objective(self, config: ObjectiveConfig, scheduler: Any = None) -> Objective:
        """See `Family.make_objective`: flow matching."""
        if config.kind == "v_prediction":
            raise RepriseError(
                "Wan predicts velocities of a flow; set objective.kind to auto or flow_matching"
            )
        return FlowMatching(config)

    def has_token_timesteps(self, positions: PositionsConfig) -> bool:
        """See `Family.has_token_timesteps`: where references have the time 0 beside a noisy video."""
        return positions.reference_time == "zero"

    @staticmethod
    def get_default_scales(transformer: Mapping[str, Any]) -> tuple[int, int]:
        """See `Family.get_default_scales`: 4 and 8; Wan 2.2 TI2V: 4 and 16."""
        channels = transformer.get("out_channels") or transformer.get("in_channels", 16)
        return 4, 16 if channels == _TI2V_CHANNELS else 8

    def get_clip_lengths(self, latent_channels: int) -> ClipLengths:
        """81 frames at 16 per second; Wan 2.2 TI2V, whose VAE alone has 48 channels: 121 at 24 per second."""
        if latent_channels == _TI2V_CHANNELS:
            return ClipLengths(24.0, (121, 97, 81, 65, 49, 33))
        return ClipLengths(16.0, (81, 65, 49, 33, 17))

    def get_text_length(self, transformer: Mapping[str, Any], tokenizer_limit: int | None = None) -> int:
        """See `Family.get_text_length`: 512, or the tokenizer's limit."""
        return limit_text_length(RELEASED_WAN_LENGTH, tokenizer_limit)

    def embed_captions(
        self,
        captions: Sequence[str],
        encoder: nn.Module,
        tokenizer: Any,
        length: int,
        device: torch.device | None = None,
    ) -> list[Tensor]:
        """See `Family.embed_captions`: without padding."""
        return embed_masked_captions(captions, encoder, tokenizer, length, device)

    def make_shape(self, transformer: Mapping[str, Any], text_tokens: int | None = None) -> TransformerShape:
        """See `Family.make_shape`."""
        return WanShape.from_config(transformer, text_tokens or self.get_text_length(transformer))

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
        """See `Family.make_stock_inputs`; the rotary embedding of `model` is replaced."""
        shape = self.make_shape(model.config, text)
        first, height, width = shape.patch
        head = shape.dim // shape.heads
        timestep = torch.rand((batch, tokens) if token_timesteps else batch, device=device) * 1000
        caption = torch.randn(batch, shape.text_tokens, shape.text_dim, device=device, dtype=dtype)
        size = (batch, shape.channels_in, first, height, width * tokens)
        strip = torch.randn(*size, device=device, dtype=dtype)
        tables = (
            torch.ones(1, tokens, 1, head, device=device),
            torch.zeros(1, tokens, 1, head, device=device),
        )
        model.rope.forward = lambda hidden_states: tables
        return {"hidden_states": strip, "timestep": timestep, "encoder_hidden_states": caption}

    def _build_sequence(
        self, model: nn.Module, noisy: Tensor, condition: Conditioning, positions: PositionsConfig
    ) -> tuple[list[Tensor], SequenceLayout]:
        """The tensors of the strip in sequence order, and their places."""
        place = self._get_full_layout(noisy, condition, positions)
        if positions.scheme == "channel_concat":
            return [_concat_channels(noisy, condition.references, model.config)], place
        if positions.place == "after":
            return [noisy, *condition.references], place
        return [*condition.references, noisy], place

    def _expand_timesteps(self, timestep: Tensor, reference: Tensor | None, place: SequenceLayout) -> Tensor:
        """(B,) where all tokens share one, else (B, tokens)."""
        if reference is None:
            if timestep.ndim == 2 and timestep.shape[1] != place.total_tokens:
                raise ValueError(f"{timestep.shape[1]} timesteps for {place.total_tokens} tokens")
            return timestep
        frames = count_patches(place.sizes[place.video_index], self.patch)[0]
        video = timestep[:, None].expand(-1, frames) if timestep.ndim == 1 else timestep
        if video.shape[1] != frames:
            raise ValueError(f"{video.shape[1]} timesteps for {frames} latent frames")
        video = video.repeat_interleave(place.token_counts[place.video_index] // frames, dim=1)
        clean = reference[:, None].to(video).expand(-1, place.total_tokens - video.shape[1])
        return torch.cat([clean, video] if place.video_index else [video, clean], dim=1)


def widen_patch_embedding(model: nn.Module, references: int) -> None:
    """Give the patch embedding channels for `references` references (Kaleido Table 5, "Channel-Concat").

    Channels 0..C-1 are the noisy video's. C more for each reference start at zero, so that the widened model
    first predicts as before. `in_channels` of the model's config is raised, so the model loads again as a
    stock model. The paper gives no details; here each reference has its own channels and is repeated over
    all latent frames.

    Raises:
        RepriseError: `references` is 0, or the model has another number of channels.
    """
    old = model.patch_embedding
    channels = model.config.out_channels * (1 + references)
    if references < 1:
        raise RepriseError(
            "channel_concat needs to know how many references the model shall take, at least 1"
        )
    if old.in_channels == channels:
        return
    if old.in_channels != model.config.out_channels:
        raise RepriseError(
            f"the model has {old.in_channels} input channels; channel_concat can widen one with "
            f"{model.config.out_channels}, or use one with {channels}"
        )
    new = nn.Conv3d(
        channels,
        old.out_channels,
        kernel_size=old.kernel_size,
        stride=old.stride,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        new.bias.copy_(old.bias)
    model.patch_embedding = new
    model.register_to_config(in_channels=channels)


def _concat_channels(noisy: Tensor, references: Sequence[Tensor], config: Any) -> Tensor:
    """(B, C (1 + n), T, h, w): the video, then each reference repeated over all frames; missing: zero."""
    room = config.in_channels // config.out_channels - 1
    if len(references) > room:
        raise RepriseError(
            f"{len(references)} references, but the model has input channels for {room}; "
            "train with a higher max_references or pass fewer"
        )
    for reference in references:
        if reference.shape[-2:] != noisy.shape[-2:]:
            raise RepriseError(
                f"channel_concat needs references of the video's size {tuple(noisy.shape[-2:])} (latents), "
                f"got {tuple(reference.shape[-2:])}; pad them, as the released preparation does"
            )
    repeated = [reference.to(noisy).expand_as(noisy) for reference in references]
    missing = [torch.zeros_like(noisy)] * (room - len(references))
    return torch.cat([noisy, *repeated, *missing], dim=1)


@lru_cache(maxsize=4)  # buckets repeat from step to step; at 480x832x81 one entry is 38 MB
def _make_tables(
    place: SequenceLayout, positions: PositionsConfig, head_dim: int, device: str
) -> tuple[Tensor, Tensor]:
    """Rotary tables of a whole sequence, as diffusers' Wan takes them: (1, tokens, 1, head_dim) float32."""
    sizes = [count_patches(size, place.patch) for size in place.sizes]
    video = sizes.pop(place.video_index)
    with torch.inference_mode(False):  # a table made while sampling is used in training, too
        where = make_sequence_positions(sizes, video, positions, torch.device(device))
        cos, sin = (
            table.repeat_interleave(2, dim=-1)
            for table in make_rotary_tables(where, split_wan_head(head_dim))
        )
    return cos[None, :, None], sin[None, :, None]


def _get_size(part: Tensor) -> Size:
    frames, height, width = part.shape[2:]
    return int(frames), int(height), int(width)
