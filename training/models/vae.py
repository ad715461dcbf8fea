"""Pixels <-> latents as the transformer sees them, for any diffusers video VAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def normalise_latents(latents: Tensor, config: Any) -> Tensor:
    """Normalise the VAE's latents (B, C, T, h, w): (x - mean) / std, or (x - shift) * scaling factor."""
    if getattr(config, "latents_mean", None):
        mean, std = _get_statistics(latents, config)
        return (latents - mean) / std
    return (latents - _get_shift(config)) * _get_scale(config)


def denormalise_latents(latents: Tensor, config: Any) -> Tensor:
    """Undo `normalise_latents`."""
    if getattr(config, "latents_mean", None):
        mean, std = _get_statistics(latents, config)
        return latents * std + mean
    return latents / _get_scale(config) + _get_shift(config)


def encode_picture(vae: nn.Module, picture: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Encode one picture (3, H, W) in [-1, 1] as a video of one frame: (1, C, 1, h, w) float32.

    Several pictures must not be encoded as one clip: a causal VAE makes one latent of up to five frames.

    Args:
        vae: a diffusers video VAE.
        picture: its pixels.
        generator: draws a sample of the posterior; None: the posterior's mode.
    """
    pixels = picture[None, :, None].to(vae.dtype)
    posterior = vae.encode(pixels).latent_dist
    latents = posterior.mode() if generator is None else posterior.sample(generator)
    return normalise_latents(latents.float(), vae.config)


def decode_latents(vae: nn.Module, latents: Tensor) -> Tensor:
    """Decode latents (B, C, T, h, w) to video (B, 3, frames, H, W), about [-1, 1], in the VAE's dtype."""
    return vae.decode(denormalise_latents(latents.float(), vae.config).to(vae.dtype), return_dict=False)[0]


def _get_statistics(latents: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(values, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1, 1)
        for values in (config.latents_mean, config.latents_std)
    )
    return mean, std


def _get_scale(config: Any) -> float:
    return float(getattr(config, "scaling_factor", None) or 1.0)


def _get_shift(config: Any) -> float:
    return float(getattr(config, "shift_factor", None) or 0.0)
