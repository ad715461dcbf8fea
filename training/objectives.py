"""What the network sees and what it should predict: flow matching (Wan) and v-prediction (CogVideoX).

An objective knows noise levels and targets, but no model, task or device. Levels are (B,) float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from training.config import ObjectiveConfig
from training.schedules import get_shift_factor, shift_sigma, transform_logit_normal

#: As `objective.kind` of the config names them.
ObjectiveName = Literal["flow_matching", "v_prediction"]


@dataclass(frozen=True)
class NoisedBatch:
    """A noised batch: the network's input, its timestep, and what it should predict."""

    input: Tensor  # (B, C, T, h, w)
    target: Tensor  # (B, C, T, h, w)
    timestep: Tensor  # (B,) float32, 0..1000, the network's input


class Objective(Protocol):
    """How samples are noised and what the network predicts."""

    name: ObjectiveName

    def draw_level(self, generator: torch.Generator, tokens_per_frame: float) -> Tensor:
        """Draw one noise level: a float32 scalar on the generator's device."""

    def get_quantile(self, q: float, tokens_per_frame: float) -> float:
        """Get the level below which a share q, 0..1, of the drawn levels is; for validation."""

    def add_noise(self, clean: Tensor, noise: Tensor, level: Tensor) -> NoisedBatch:
        """Add noise to latents.

        Args:
            clean: (B, C, T, h, w), normalised latents.
            noise: standard normal, of the same shape.
            level: (B,), as `draw_level` draws them.
        """


class FlowMatching:
    """Rectified flow, Kaleido Eq. 2: x_s = (1 - s) x + s n, target n - x, timestep 1000 s."""

    name: ObjectiveName = "flow_matching"

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def draw_level(self, generator: torch.Generator, tokens_per_frame: float) -> Tensor:
        """Draw sigma in (0, 1): logit-normal, then shifted by `objective.shift`."""
        normal = torch.randn((), generator=generator, device=generator.device)
        raw = transform_logit_normal(normal, self.config.sigma_mean, self.config.sigma_std)
        return shift_sigma(raw, get_shift_factor(self.config, tokens_per_frame))

    def get_quantile(self, q: float, tokens_per_frame: float) -> float:
        """See `Objective.get_quantile`: the drawn distribution is monotonic in its normal."""
        normal = torch.tensor(NormalDist().inv_cdf(q))
        raw = transform_logit_normal(normal, self.config.sigma_mean, self.config.sigma_std)
        return float(shift_sigma(raw, get_shift_factor(self.config, tokens_per_frame)))

    def add_noise(self, clean: Tensor, noise: Tensor, level: Tensor) -> NoisedBatch:
        """See `Objective.add_noise`; level: sigma."""
        sigma = expand_like(level, clean)
        return NoisedBatch((1.0 - sigma) * clean + sigma * noise, noise - clean, 1000.0 * level.float())


class VPrediction:
    """Salimans & Ho 2022, as CogVideoX trains it: x_t = a x + b n, target a n - b x, a^2 + b^2 = 1.

    The loss on v has weight 1: it equals CogVideoX's, on the clean sample times 1 / (1 - alpha_bar).
    """

    name: ObjectiveName = "v_prediction"

    def __init__(self, alphas_cumprod: Tensor) -> None:
        """alphas_cumprod: (1000,), of the model's own scheduler, from clean to noise."""
        self.alphas_cumprod = alphas_cumprod.detach().float().cpu()

    @classmethod
    def from_scheduler(cls, scheduler: Any) -> VPrediction:
        """Make it for the schedule of a diffusers scheduler such as CogVideoXDDIMScheduler."""
        return cls(scheduler.alphas_cumprod)

    def draw_level(self, generator: torch.Generator, tokens_per_frame: float) -> Tensor:
        """Draw a timestep, uniform over the integers 0..999, as float32."""
        step = torch.randint(len(self.alphas_cumprod), (), generator=generator, device=generator.device)
        return step.float()

    def get_quantile(self, q: float, tokens_per_frame: float) -> float:
        """See `Objective.get_quantile`: an integer 0..999."""
        return float(min(math.floor(q * len(self.alphas_cumprod)), len(self.alphas_cumprod) - 1))

    def add_noise(self, clean: Tensor, noise: Tensor, level: Tensor) -> NoisedBatch:
        """See `Objective.add_noise`; level: timestep."""
        alpha = self.alphas_cumprod.to(level.device)[level.long()]
        signal, sigma = expand_like(alpha.sqrt(), clean), expand_like((1.0 - alpha).sqrt(), clean)
        return NoisedBatch(signal * clean + sigma * noise, signal * noise - sigma * clean, level.float())


def compute_sample_losses(prediction: Tensor, target: Tensor, elements: int | None = None) -> Tensor:
    """Compute the mean square error of each sample: (B,) float32.

    Args:
        prediction: (B, ...).
        target: of the same shape.
        elements: by which the sum of a sample is divided; None: its number of values. A rank that has a part
            of each sample passes the number of values of the whole sample: then the losses of the ranks of a
            group add up to the sample's.
    """
    error = (prediction.float() - target.float()).square().flatten(1).sum(1)
    return error / (elements if elements is not None else math.prod(target.shape[1:]))


def expand_like(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, ...), of the type and device of `like`, to be multiplied with it."""
    return values.to(like.device, like.dtype).reshape(-1, *(1,) * (like.ndim - 1))
