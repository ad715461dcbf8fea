"""CogVideoX 2B and 5B (CogVideoXTransformer3DModel) with references as clean frames before the video.

The stock forward runs on a strip of patches (see packing.py) with rotary tables for references and video; the
output of the references is dropped. That equals the released proxy replay code (docs/proxy-replay.md).
References are frames 0..n-1 and the video frames n..n+T-1, all with the timestep of the video. What is
replaced in a model holds no weights: the attention processors (diffusers' own supports neither attention
backends nor sequence parallelism); and in the 2B, whose positions are added to the patches, a hook adds those
of the current call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from diffusers.models.embeddings import get_3d_sincos_pos_embed
from torch import Tensor, nn

from reprise.errors import RepriseError
from training.config import ObjectiveConfig, PositionsConfig
from training.models.cogvideox_shape import CogVideoXShape
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
from training.models.rotary import RotaryTables, rotate_pairs
from training.models.sequence_attention import SequenceExchange, compute_attention, set_token_counts
from training.models.shape import TransformerShape
from training.models.subject_token import reserve_token
from training.models.text import RELEASED_COGVIDEOX_LENGTH, embed_padded_captions, limit_text_length
from training.objectives import Objective, ObjectiveName, VPrediction
from training.positions import make_cogvideox_positions, make_rotary_tables, split_cogvideox_head


@dataclass
class ReferenceTokens:
    """How many tokens at the start of the sequence belong to references; set before each forward pass.

    One object is shared by all norms of a model. It must keep its value until the backward pass is over,
    because activation checkpointing runs the norms again there.
    """

    count: int = 0


@dataclass
class CallInputs:
    """Inputs of the current call for the replaced parts of a model."""

    references: ReferenceTokens = field(default_factory=ReferenceTokens)
    places: Tensor | None = None  # (1 or B, tokens, D): positions that are added to patches; 2B only


class CogVideoXAttention:
    """Joint attention of [text | references | video]; rotates all but the text, in float32, and casts back.

    The same as diffusers' CogVideoXAttnProcessor2_0, but through its dispatch of attention backends, for
    sequences that workers share, and with tables that may differ between the samples of a batch.
    """

    _attention_backend = None  # set from outside, as diffusers does on its own processors
    exchange: SequenceExchange | None = None  # set from outside; None: this worker has whole sequences

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: RotaryTables | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, N, D) reference and video tokens, (B, L, D) text -> both after attention."""
        text = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        query, key, value = (
            part(tokens).unflatten(-1, (attn.heads, -1)) for part in (attn.to_q, attn.to_k, attn.to_v)
        )
        query = attn.norm_q(query) if attn.norm_q is not None else query
        key = attn.norm_k(key) if attn.norm_k is not None else key
        if image_rotary_emb is not None:
            query, key = (
                torch.cat([part[:, :text], rotate_pairs(part[:, text:], image_rotary_emb)], dim=1)
                for part in (query, key)
            )
        output = compute_attention(query, key, value, attention_mask, self._attention_backend, self.exchange)
        output = attn.to_out[1](attn.to_out[0](output.flatten(2).type_as(query)))
        return output[:, text:], output[:, :text]


class CogVideoXFamily:
    """CogVideoX 2B and 5B."""

    name = "cogvideox"
    transformer = "CogVideoXTransformer3DModel"
    objective: ObjectiveName = "v_prediction"
    samples_posterior = True
    default_size = VideoSize(480, 720, 49, 8.0)
    # What the released proxy replay code names. "proj" also matches ff.net.0.proj and the patch convolution;
    # see the goldens' list of modules.
    lora_targets: tuple[str, ...] = (
        "to_k",
        "to_q",
        "to_v",
        "to_out.0",
        "proj",
        "text_proj",
        "norm1.linear",
        "norm2.linear",
        "ff.net.2",
    )
    comfyui_names: ModuleNames = (
        ("transformer_blocks.#.attn1.to_$", "blocks.#.$"),
        ("transformer_blocks.#.attn1.to_out.0", "blocks.#.attn_out"),
        ("transformer_blocks.#.ff.net.0.proj", "blocks.#.ff_proj"),
        ("transformer_blocks.#.ff.net.2", "blocks.#.ff_out"),
        ("transformer_blocks.#.norm@.linear", "blocks.#.norm@.linear"),
        ("time_embedding.linear_@", "time_embedding_linear_@"),
        ("patch_embed.proj", "patch_embed.proj"),
        ("patch_embed.text_proj", "patch_embed.text_proj"),
        ("norm_out.linear", "norm_out.linear"),
        ("proj_out", "proj_out"),
    )

    def __init__(self, patch: Size = (1, 2, 2), temporal_scale: int = 4, spatial_scale: int = 8) -> None:
        """Defaults are the published models'."""
        self.patch = patch
        self.temporal_scale = temporal_scale
        self.spatial_scale = spatial_scale

    def prepare_model(
        self, model: nn.Module, positions: PositionsConfig | None = None, references: int = 0
    ) -> None:
        """See `Family.prepare_model`; CogVideoX 1.5 and image-to-video models are refused."""
        config = model.config
        if config.patch_size_t is not None:
            raise RepriseError("CogVideoX 1.5 cuts patches two frames deep; use CogVideoX 2B or 5B")
        if config.in_channels != config.out_channels or config.use_learned_positional_embeddings:
            raise RepriseError(
                f"the model takes {config.in_channels} channels and returns {config.out_channels}: an "
                "image-to-video model; use the text-to-video CogVideoX 2B or 5B"
            )
        if (1, config.patch_size, config.patch_size) != self.patch:
            raise RepriseError(f"the model's patches are {config.patch_size}, not {self.patch[1]}")
        if positions is not None:
            _check_positions(positions)
        model.call = CallInputs()
        model.set_attn_processor(CogVideoXAttention())
        if not config.use_rotary_positional_embeddings:
            model.patch_embed.use_positional_embeddings = False
            del model.patch_embed.pos_embedding  # not saved, and here computed for each call
            model.patch_embed.register_forward_hook(_make_places_hook(model.call))

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
        """See `Family.predict`; `timestep` has integers 0..999, as in CogVideoX's schedulers.

        With `shard` the text is shared, too, since attention is joint.
        """
        _check_positions(positions)
        config = model.config
        dtype = dtype if dtype is not None else model.patch_embed.proj.weight.dtype
        whole = self._get_full_layout(noisy, condition)
        place = self.get_layout(noisy, condition, positions)
        strip = pack_strip([part.to(dtype) for part in (*condition.references, noisy)], self.patch)
        base = (config.sample_height // config.patch_size, config.sample_width // config.patch_size)
        device = str(noisy.device)
        tables: RotaryTables | None = None
        places: Tensor | None = None
        if config.use_rotary_positional_embeddings:
            tables = _make_tables(whole, base, positions.crop, config.attention_head_dim, device)
        else:
            width = config.num_attention_heads * config.attention_head_dim
            scales = (config.spatial_interpolation_scale, config.temporal_interpolation_scale)
            places = _make_sincos(whole, width, scales, device)
        if condition.keep is not None:
            visible = whole.select_visible_tokens(condition.keep)
            strip = select_tokens(strip, visible, self.patch)
            tables = tuple(_select_rows(table, visible) for table in tables) if tables is not None else None
            places = _select_rows(places, visible) if places is not None else None
        text = reserve_token(
            model, condition.text.to(dtype), condition.marked, first=shard is None or not shard.rank
        )
        own = range(place.total_tokens)
        if shard is not None:
            own = shard.get_token_range(place.total_tokens)
            strip = slice_tokens(strip, own, self.patch)
            tables = tuple(table[:, own.start : own.stop] for table in tables) if tables is not None else None
            places = places[:, own.start : own.stop] if places is not None else None
            words = shard.get_token_range(text.shape[1])
            counts = zip(
                shard.count_tokens(text.shape[1]), shard.count_tokens(place.total_tokens), strict=True
            )
            set_token_counts(model, [sum(pair) for pair in counts])
            text = text[:, words.start : words.stop]
        clean = place.video_tokens.start
        model.call.references.count = max(min(clean, own.stop) - own.start, 0)
        model.call.places = places
        output = model(
            hidden_states=strip.transpose(1, 2),  # diffusers: frames before channels
            encoder_hidden_states=text,
            timestep=timestep,
            image_rotary_emb=tables,
            return_dict=False,
        )[0].transpose(1, 2)
        if shard is None:
            return unpack_strip(output, place.sizes, self.patch)[place.video_index]
        first = model.call.references.count
        return slice_tokens(output, range(first, first + len(place.get_own_video(shard))), self.patch)

    def get_layout(
        self, video: Tensor, condition: Conditioning, positions: PositionsConfig
    ) -> SequenceLayout:
        """See `Family.get_layout`."""
        whole = self._get_full_layout(video, condition)
        return whole if condition.keep is None else whole.keep_reference_tokens(condition.keep.shape[-1])

    def _get_full_layout(self, video: Tensor, condition: Conditioning) -> SequenceLayout:
        """The same before any token was dropped."""
        sizes = [(int(t), int(h), int(w)) for t, h, w in (part.shape[2:] for part in condition.references)]
        frames, height, width = video.shape[2:]
        return make_layout(sizes, (int(frames), int(height), int(width)), self.patch)

    def list_blocks(self, model: nn.Module) -> list[nn.Module]:
        """See `Family.list_blocks`."""
        return list(model.transformer_blocks)

    def share_attention(self, model: nn.Module, exchange: SequenceExchange) -> None:
        """See `Family.share_attention`."""
        for block in self.list_blocks(model):
            block.attn1.processor.exchange = exchange

    def make_objective(self, config: ObjectiveConfig, scheduler: Any = None) -> Objective:
        """See `Family.make_objective`: v-prediction."""
        if config.kind == "flow_matching":
            raise RepriseError("CogVideoX predicts v; set objective.kind to auto or v_prediction")
        if scheduler is None:
            raise ValueError("v-prediction needs the model's scheduler for its noise schedule")
        return VPrediction.from_scheduler(scheduler)

    def has_token_timesteps(self, positions: PositionsConfig) -> bool:
        """See `Family.has_token_timesteps`: never, one timestep modulates a whole sample."""
        return False

    @staticmethod
    def get_default_scales(transformer: Mapping[str, Any]) -> tuple[int, int]:
        """See `Family.get_default_scales`: 4 and 8."""
        return 4, 8

    def get_clip_lengths(self, latent_channels: int) -> ClipLengths:
        """49 frames at 8 per second."""
        return ClipLengths(8.0, (49, 41, 33, 25, 17))

    def get_text_length(self, transformer: Mapping[str, Any], tokenizer_limit: int | None = None) -> int:
        """See `Family.get_text_length`: the transformer's `max_text_seq_length`, 226 as released."""
        length = int(transformer.get("max_text_seq_length", RELEASED_COGVIDEOX_LENGTH))
        return limit_text_length(length, tokenizer_limit)

    def embed_captions(
        self,
        captions: Sequence[str],
        encoder: nn.Module,
        tokenizer: Any,
        length: int,
        device: torch.device | None = None,
    ) -> list[Tensor]:
        """See `Family.embed_captions`: padding included, so that L is always `length`."""
        return embed_padded_captions(captions, encoder, tokenizer, length, device)

    def make_shape(self, transformer: Mapping[str, Any], text_tokens: int | None = None) -> TransformerShape:
        """See `Family.make_shape`."""
        return CogVideoXShape.from_config(transformer, text_tokens or self.get_text_length(transformer))

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
        """See `Family.make_stock_inputs`."""
        shape = self.make_shape(model.config, text)
        first, height, width = shape.patch
        head = shape.dim // shape.heads
        timestep = torch.rand((batch, tokens) if token_timesteps else batch, device=device) * 1000
        caption = torch.randn(batch, shape.text_tokens, shape.text_dim, device=device, dtype=dtype)
        size = (batch, first, shape.channels_in, height, width * tokens)
        strip = torch.randn(*size, device=device, dtype=dtype)
        rotary = (torch.ones(tokens, head, device=device), torch.zeros(tokens, head, device=device))
        return {
            "hidden_states": strip,
            "timestep": timestep,
            "encoder_hidden_states": caption,
            "image_rotary_emb": rotary if model.config.use_rotary_positional_embeddings else None,
        }


def _check_positions(positions: PositionsConfig) -> None:
    if positions.scheme not in ("auto", "first_frame") or positions.place != "before":
        raise RepriseError(
            "CogVideoX takes references as the frames before the video; set positions.scheme to auto or "
            f"first_frame and positions.place to before, not {positions.scheme} and {positions.place}"
        )
    if positions.reference_time != "video":
        raise RepriseError("CogVideoX has one timestep per sample; set positions.reference_time to video")


def _select_rows(table: Tensor, tokens: Tensor) -> Tensor:
    """(1, N, d) and (n,) or (B, n) indices -> (1 or B, n, d)."""
    return table[0][tokens] if tokens.ndim == 2 else table[:, tokens]


def _make_places_hook(call: CallInputs) -> Any:
    def add_places(module: nn.Module, args: tuple[Tensor, Tensor], embeds: Tensor) -> Tensor:
        if call.places is None:
            raise RuntimeError(
                "a CogVideoX model prepared for references is called through its family's predict"
            )
        text = args[0].shape[1]
        return torch.cat([embeds[:, :text], embeds[:, text:] + call.places.to(embeds.dtype)], dim=1)

    return add_places


def _list_frames(place: SequenceLayout) -> list[tuple[Size, int]]:
    """Each part's size in patches and its first frame: references are frames 0..n-1, the video follows."""
    sizes = [count_patches(size, place.patch) for size in place.sizes]
    return list(zip(sizes, accumulate((size[0] for size in sizes), initial=0), strict=False))


@lru_cache(maxsize=4)  # buckets repeat from step to step
def _make_tables(
    place: SequenceLayout, base: tuple[int, int], crop: Any, head_dim: int, device: str
) -> RotaryTables:
    """Rotary tables of a whole sequence: cos and sin, (1, tokens, head_dim) float32."""
    with torch.inference_mode(
        False
    ):  # a table that is first built while sampling is used in training as well
        where = torch.cat(
            [make_cogvideox_positions(size, first, base, crop, device) for size, first in _list_frames(place)]
        )
        cos, sin = (
            table.repeat_interleave(2, dim=-1)
            for table in make_rotary_tables(where, split_cogvideox_head(head_dim))
        )
    return cos[None], sin[None]


@lru_cache(maxsize=4)
def _make_sincos(place: SequenceLayout, width: int, scales: tuple[float, float], device: str) -> Tensor:
    """Positions that CogVideoX 2B adds to patches, as diffusers has them: (1, tokens, width) float32."""
    parts = []
    with torch.inference_mode(False):
        for (frames, high, wide), first in _list_frames(place):
            table = get_3d_sincos_pos_embed(
                width,
                (wide, high),
                first + frames,
                scales[0],
                scales[1],
                device=torch.device(device),
                output_type="pt",
            )
            parts.append(table[first:].flatten(0, 1))
        return torch.cat(parts)[None].float()
