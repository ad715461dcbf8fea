"""Bytes of activations, followed and not guessed.

The stock transformer is built with a few blocks and run forward and backward on tensors that have shapes and
no memory; every allocation is followed until it is freed. So what is found holds for each family,
checkpointing mode and precision as the code has them, without a GPU. Every further block adds the same.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from training.config import LoraConfig
from training.cost.flops import Checkpointing, TransformerShape
from training.loop import parallel
from training.lora.adapters import add_lora
from training.models.components import find_vae_class
from training.models.vae import decode_latents
from training.models.video_size import get_vae_scales


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes of tensors made by one forward and backward pass; weights and inputs are not among them."""

    saved: int  # alive between the two
    peak: int


def measure_activations(
    config: Mapping[str, Any],
    tokens: int,
    batch: int,
    checkpointing: Checkpointing,
    precision: Literal["bf16", "fp32"],
    *,
    layers: int,
    text: int | None = None,
    token_timesteps: bool = False,
    lora: LoraConfig | None = None,
) -> ActivationBytes:
    """Follow one pass of the transformer of a diffusers config with so many blocks, over `batch` samples.

    text: tokens of a caption; None: as the released pipelines pad it. each_token: has a timestep of its own.
    """
    key = json.dumps(dict(config), sort_keys=True)
    return _measure_activations(
        key, tokens, batch, checkpointing, precision, layers, text, token_timesteps, lora
    )


@functools.lru_cache(maxsize=256)  # a search for a layout asks for the same again and again
def _measure_activations(
    config: str,
    tokens: int,
    batch: int,
    checkpointing: Checkpointing,
    precision: str,
    layers: int,
    text: int | None,
    token_timesteps: bool,
    lora: LoraConfig | None,
) -> ActivationBytes:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # CPU, because without a GPU a fake CUDA tensor is given the attention that stores every score. The CPU's
    # keeps what FlashAttention keeps: queries, keys, values, the output, one number per row.
    model = build_stock_model(json.loads(config), layers=layers)
    if lora is not None:
        add_lora(model, lora, TransformerShape.from_config(json.loads(config)).family)
    with FakeTensorMode():
        _make_fake(model, dtype)
        recompute_blocks(model, checkpointing)
        for parameter in filter(lambda each: each.requires_grad, model.parameters()):
            parameter.register_post_accumulate_grad_hook(_drop_gradient)  # as FSDP does, once it is reduced
        call = make_inputs(model, tokens, batch, dtype, text=text, token_timesteps=token_timesteps)
        with MemoryTracer() as tracer:
            loss = model(**call, return_dict=False)[0].float().square().mean()
            saved = tracer.alive
            loss.backward()
    return ActivationBytes(saved, tracer.peak)


def measure_decoding(
    config: Mapping[str, Any], video: tuple[int, int, int], precision: Literal["bf16", "fp32"]
) -> int:
    """Peak bytes of turning a latent video (T, h, w) into pixels in tiles, the VAE's weights among them.

    Followed for one tile of the first frames, as further ones need no more; then there are the pixels.

    config: of a diffusers VAE, or one of ours.
    """
    return _measure_decoding(json.dumps(dict(config), sort_keys=True), video, precision)


@functools.lru_cache(maxsize=16)
def _measure_decoding(config: str, video: tuple[int, int, int], precision: str) -> int:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    settings = json.loads(config)
    vae = build_stock_model(settings)
    if hasattr(vae, "enable_tiling"):
        vae.enable_tiling()
    frames, height, width = video
    temporal, spatial = get_vae_scales(vae.config)
    # A batch of frames (CogVideoX: two, at first three) and another, which finds what the first one kept.
    tile = (
        min(frames, 4 + frames % 2),
        min(height, getattr(vae, "tile_sample_min_height", height * spatial) // spatial),
        min(width, getattr(vae, "tile_sample_min_width", width * spatial) // spatial),
    )
    with FakeTensorMode(), torch.no_grad():
        _make_fake(vae, dtype)
        channels = getattr(vae.config, "z_dim", None) or vae.config.latent_channels
        latents = torch.empty(1, channels, *tile)
        with MemoryTracer() as tracer:
            decode_latents(vae, latents).float()
    weights = sum(parameter.numel() * dtype.itemsize for parameter in vae.parameters())
    if tile == video:
        return weights + tracer.peak
    pixels = 3 * ((frames - 1) * temporal + 1) * height * width * spatial**2
    # Tiles, which overlap by a third, side by side; as one video; and that again in float32.
    return weights + tracer.peak + pixels * (3 * dtype.itemsize + 4)


class MemoryTracer(TorchDispatchMode):
    """Counts the bytes of every storage that is made under it, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        # A view of something older, or an operation in place, makes nothing.
        older = {id(each.untyped_storage()) for each in tree_leaves((args, kwargs)) if _is_tensor(each)}
        for each in tree_leaves(made):
            if _is_tensor(each):
                storage = each.untyped_storage()
                if id(storage) not in older and id(storage) not in self._known:
                    self._track_storage(storage)
        return made

    def _track_storage(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._release_storage, key, size)

    def _release_storage(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def count_parameters(
    config: Mapping[str, Any], layers: int, lora: LoraConfig | None = None
) -> tuple[int, int]:
    """Numbers of all parameters and of the trained ones, with so many blocks."""
    model = build_stock_model(config, layers=layers)
    if lora is not None:
        add_lora(model, lora, TransformerShape.from_config(config).family)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def build_stock_model(
    config: Mapping[str, Any],
    *,
    layers: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "meta",
) -> nn.Module:
    """The stock model of a diffusers config, with random weights, or without any on "meta"."""
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    if layers is not None:
        kept["num_layers"] = layers
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # made as such: parameters without memory cannot be cast afterwards
    try:
        with torch.device(device):
            return find_vae_class(config["_class_name"])(**kept)
    finally:
        torch.set_default_dtype(before)


def make_inputs(
    model: nn.Module,
    tokens: int,
    batch: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    text: int | None = None,
    token_timesteps: bool = False,
) -> dict[str, Any]:
    """Arguments of a stock transformer: a strip of so many patches, and rotary tables of its length."""
    shape = TransformerShape.from_config(dict(model.config) | {"_class_name": type(model).__name__}, text)
    first, height, width = shape.patch
    channels, head = shape.channels_in, shape.dim // shape.heads
    timestep = torch.rand((batch, tokens) if token_timesteps else batch, device=device) * 1000
    caption = torch.randn(batch, shape.text_tokens, shape.text_dim, device=device, dtype=dtype)
    if shape.family == "wan":
        strip = torch.randn(batch, channels, first, height, width * tokens, device=device, dtype=dtype)
        tables = (
            torch.ones(1, tokens, 1, head, device=device),
            torch.zeros(1, tokens, 1, head, device=device),
        )
        model.rope.forward = lambda hidden_states: tables
        return {"hidden_states": strip, "timestep": timestep, "encoder_hidden_states": caption}
    strip = torch.randn(batch, first, channels, height, width * tokens, device=device, dtype=dtype)
    rotary = (torch.ones(tokens, head, device=device), torch.zeros(tokens, head, device=device))
    return {
        "hidden_states": strip,
        "timestep": timestep,
        "encoder_hidden_states": caption,
        "image_rotary_emb": rotary if model.config.use_rotary_positional_embeddings else None,
    }


def recompute_blocks(model: nn.Module, mode: Checkpointing) -> None:
    """Compute blocks of a stock transformer again in the backward pass, as training does."""
    parallel.recompute_blocks(model.blocks if hasattr(model, "blocks") else model.transformer_blocks, mode)


def _make_fake(model: nn.Module, dtype: torch.dtype) -> None:
    """Parameters and buffers of `dtype` under the fake mode: `Module.to` cannot swap them."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=dtype)
                module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
