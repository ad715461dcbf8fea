"""Bytes of activations, measured by tracing fake tensors.

The stock transformer is built with a few blocks and run forward and backward on tensors that have shapes but
no memory, and every allocation is traced until it is freed. So the result holds for every family,
checkpointing mode and precision, and needs no GPU. Each further block adds the same bytes.
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
from training.cost.flops import Checkpointing
from training.loop import parallel
from training.lora.adapters import add_lora
from training.models.build import make_family
from training.models.components import find_vae_class
from training.models.family import Family
from training.models.vae import decode_latents
from training.models.video_size import get_vae_scales
from training.precision import DTYPES


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes of the tensors of one forward and backward pass, without weights and inputs."""

    saved: int  # alive between the two passes
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
    """Measure one forward and backward pass of a transformer.

    Args:
        config: of the diffusers transformer.
        tokens: of references and video.
        batch: samples.
        checkpointing: what the backward pass computes again.
        precision: of the computation.
        layers: number of blocks, instead of the config's.
        text: tokens of a caption; None: as the released pipelines pad it.
        token_timesteps: every token has its own timestep.
        lora: train only adapters.
    """
    key = json.dumps(dict(config), sort_keys=True)
    return _measure_activations(
        key, tokens, batch, checkpointing, precision, layers, text, token_timesteps, lora
    )


@functools.lru_cache(maxsize=256)  # a search for a layout repeats most of its questions
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
    dtype = DTYPES[precision]
    # On the CPU: without a GPU, fake CUDA tensors get the attention that stores every score. The CPU's keeps
    # what FlashAttention keeps: queries, keys, values, the output and one number per row.
    model = build_stock_model(json.loads(config), layers=layers)
    if lora is not None:
        add_lora(model, lora, _find_family(model).name)
    with FakeTensorMode():
        _make_fake(model, dtype)
        apply_recomputation(model, checkpointing)
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
    """Measure the peak bytes of decoding a latent video in tiles, the VAE's weights included.

    One tile of the first frames is traced, since further tiles need no more; the pixels are added.

    Args:
        config: of a diffusers VAE, or of a registered one.
        video: latent size (T, h, w).
        precision: of the computation.
    """
    return _measure_decoding(json.dumps(dict(config), sort_keys=True), video, precision)


@functools.lru_cache(maxsize=16)
def _measure_decoding(config: str, video: tuple[int, int, int], precision: str) -> int:
    dtype = DTYPES[precision]
    settings = json.loads(config)
    vae = build_stock_model(settings)
    if hasattr(vae, "enable_tiling"):
        vae.enable_tiling()
    frames, height, width = video
    temporal, spatial = get_vae_scales(vae.config)
    # Two batches of frames (CogVideoX: of two, the first of three): the second meets the cache of the first.
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
    # The tiles (with their overlap of a third), the video put together of them, and its copy in float32.
    return weights + tracer.peak + pixels * (3 * dtype.itemsize + 4)


class MemoryTracer(TorchDispatchMode):
    """Counts the bytes of every storage that is created while it is active, until the storage is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        # A view of an existing storage, or an operation in place, creates nothing.
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
    """Count all parameters, and the trained ones, of a transformer with `layers` blocks."""
    model = build_stock_model(config, layers=layers)
    if lora is not None:
        add_lora(model, lora, _find_family(model).name)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def build_stock_model(
    config: Mapping[str, Any],
    *,
    layers: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "meta",
) -> nn.Module:
    """Build the stock model of a diffusers config, with random weights; on "meta" without any."""
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    if layers is not None:
        kept["num_layers"] = layers
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # parameters without memory cannot be cast afterwards
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
    """Make the arguments of a stock transformer; see `Family.make_stock_inputs`."""
    return _find_family(model).make_stock_inputs(
        model, tokens, batch, dtype, device, text=text, token_timesteps=token_timesteps
    )


def apply_recomputation(model: nn.Module, mode: Checkpointing) -> None:
    """Make a stock transformer recompute its blocks in the backward pass, as training does."""
    parallel.recompute_blocks(_find_family(model).list_blocks(model), mode)


def _find_family(model: Any) -> Family:
    return make_family({**model.config, "_class_name": type(model).__name__})


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
