"""Which sizes of video a model can make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reprise.errors import RepriseError
from training.models.packing import Size


def get_patch(transformer: Mapping[str, Any]) -> Size:
    """Get the latents (t, h, w) of one token from a transformer's config."""
    patch = transformer.get("patch_size", (1, 2, 2))
    p_t, p_h, p_w = (1, patch, patch) if isinstance(patch, int) else patch
    return int(p_t), int(p_h), int(p_w)


def get_token_grid(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Size:
    """Get the (frames, rows, columns) of one token: the steps in which a video's size can grow."""
    temporal, spatial = get_vae_scales(vae)
    p_t, p_h, p_w = get_patch(transformer)
    return temporal * p_t, spatial * p_h, spatial * p_w


def get_vae_scales(vae: Mapping[str, Any]) -> tuple[int, int]:
    """Get frames per latent frame (after the first) and pixels per latent from a VAE's config."""
    temporal = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio") or 4
    blocks = vae.get("block_out_channels")
    spatial = vae.get("scale_factor_spatial") or (2 ** (len(blocks) - 1) if blocks else 8)
    return int(temporal), int(spatial)


def check_size(size: tuple[int, int, int], grid: Size) -> None:
    """Check that a model can make a video of (height px, width px, frames).

    Raises:
        RepriseError: the size is not on the grid of `get_token_grid`.
    """
    height, width, count = size
    frames, rows, columns = grid
    if height < rows or width < columns or height % rows or width % columns:
        raise RepriseError(f"{height}x{width} px: height and width must be multiples of {rows} and {columns}")
    if count < 1 or (count - 1) % frames:
        near = max(1, (count - 1) // frames * frames + 1)
        raise RepriseError(
            f"{count} frames: the number must be {frames}n + 1, such as {near} or {near + frames}"
        )
