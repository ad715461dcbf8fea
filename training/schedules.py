"""Noise levels of flow matching: their distribution in training, and the grid of sampling.

sigma is the share of noise, 0 (clean) to 1 (only noise). All functions are pure; none draws numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reprise.errors import InputError
from training.config import ObjectiveConfig

# The line through (256 tokens, 0.5) and (4096 tokens, 1.15), not clamped: Kaleido's released RFLoss.
_MU_TOKENS, _MU_VALUES = (256, 4096), (0.5, 1.15)


def compute_resolution_mu(tokens_per_frame: float) -> float:
    """Compute mu = 0.5 + 0.65 (L - 256) / 3840 of the resolution shift.

    The number of frames has no influence (released code). 480x832: mu = 0.721, a flow shift of e^mu = 2.056.

    Args:
        tokens_per_frame: L, the tokens of one latent frame, h * w / 4 for patches of 2 x 2.
    """
    slope = (_MU_VALUES[1] - _MU_VALUES[0]) / (_MU_TOKENS[1] - _MU_TOKENS[0])
    return _MU_VALUES[0] + slope * (tokens_per_frame - _MU_TOKENS[0])


def shift_sigma(sigma: Tensor, factor: float) -> Tensor:
    """Shift noise levels of any shape towards noise: factor / (factor + 1 / sigma - 1), the flow shift."""
    return factor / (factor + 1.0 / sigma - 1.0)


def get_shift_factor(config: ObjectiveConfig, tokens_per_frame: float) -> float:
    """Get the factor by which training shifts sigma under `objective.shift`."""
    if config.shift == "resolution":
        return math.exp(compute_resolution_mu(tokens_per_frame))
    return 1.0 if config.shift == "none" else float(config.shift)


def transform_logit_normal(normal: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Transform standard normal draws of any shape: sigmoid(mean + std * draw), in (0, 1)."""
    return torch.sigmoid(mean + std * normal)


def make_sampling_sigmas(steps: int, shift: float = 7.0) -> Tensor:
    """Make the grid of sampling: (steps + 1,) float32, from exactly 1 to exactly 0.

    sigma_k = 1 - u / (shift - (shift - 1) u), u = k / steps: a flow shift of a linear grid, independent of
    the resolution (the released sampler does not use the training-time shift). As released, the fraction is
    computed in float64 and rounded to float32 before it is subtracted from 1.

    Raises:
        InputError: there are fewer than 1 steps.
    """
    if steps < 1:
        raise InputError(f"sampling takes at least 1 step, not {steps}")
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    return 1.0 - (u / (shift - (shift - 1.0) * u)).float()
