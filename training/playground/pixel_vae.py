"""A lossless VAE: pixels rearranged into channels, behind diffusers' interface.

Tiny learned VAEs blur the details of a small world. This one is exact, so every fault of a generated video
comes from the transformer.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


class PixelUnshuffleVAE(ModelMixin, ConfigMixin):
    """(B, 3, T, H, W) in [-1, 1] <-> (B, 3 f^2, T, H / f, W / f), f = `scale_factor_spatial`.

    `latents_mean` and `latents_std` have the meaning of AutoencoderKLWan's: (x - mean) / std is what the
    transformer sees.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        scale_factor_spatial: int = 2,
        scale_factor_temporal: int = 1,
        z_dim: int = 12,
        latents_mean: tuple[float, ...] = (0.0,) * 12,
        latents_std: tuple[float, ...] = (0.5,) * 12,
    ) -> None:
        super().__init__()
        # diffusers reads type and device of a model from its parameters.
        self.anchor = nn.Parameter(torch.zeros(1), requires_grad=False)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[object]:
        """Encode x (B, 3, T, H, W) as a distribution without spread around the rearranged pixels."""
        mean = _apply_per_frame(pixel_unshuffle, x, self.config.scale_factor_spatial)
        certain = torch.full_like(mean, -30.0)  # log variance; the least that diffusers keeps
        posterior = DiagonalGaussianDistribution(torch.cat([mean, certain], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Decode z (B, 3 f^2, T, h, w) to (B, 3, T, h f, w f), clamped to [-1, 1]."""
        sample = _apply_per_frame(pixel_shuffle, z, self.config.scale_factor_spatial).clamp(-1, 1)
        return DecoderOutput(sample=sample) if return_dict else (sample,)


def _apply_per_frame(function: object, video: Tensor, factor: int) -> Tensor:
    frames = video.transpose(1, 2)
    moved: Tensor = function(frames.flatten(0, 1), factor)  # type: ignore[operator]
    return moved.unflatten(0, frames.shape[:2]).transpose(1, 2)
