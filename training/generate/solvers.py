"""From noise to latents, for the pipeline and validation: guidance and the Euler steps of flow matching."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from training.config import PositionsConfig
from training.models.family import Conditioning, Family

# (latents (B, C, T, h, w), sigma as a float) -> velocity, same shape
Velocity = Callable[[Tensor, float], Tensor]


def apply_guidance(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: u + scale (c - u). Both see the references, so it acts on the text alone."""
    return unconditional + scale * (conditional - unconditional)


def apply_reference_guidance(
    nothing: Tensor, references: Tensor, both: Tensor, text: float, reference: float
) -> Tensor:
    """Separate scales: v0 + reference (v_ref - v0) + text (v_ref_text - v_ref).

    nothing: neither text nor references; references: references alone; both: text and references.
    With reference = 1 this is `guide`.
    """
    return nothing + reference * (references - nothing) + text * (both - references)


def make_guided_velocity(
    family: Family,
    model: nn.Module,
    condition: Conditioning,
    empty: Tensor,
    positions: PositionsConfig,
    *,
    text: float | Callable[[], float] = 6.0,
    reference: float | None = None,
    dtype: torch.dtype | None = None,
) -> Velocity:
    """The network under guidance, as a function of latents and sigma.

    condition: of batch B; empty: (B or 1, L, D), the embedding of the empty (or negative) prompt. Both go
    through the network as one batch, [empty, text], with the same references, as released. A `reference`
    scale costs a second pass without references; without one, and with a text scale of 1, there is no
    guidance. A `text` that is called gives the scale of the step under way.
    """
    both = replace(
        condition,
        text=torch.cat([empty.expand_as(condition.text), condition.text]),
        references=tuple(_double_batch(part) for part in condition.references),
        keep=_double_keep(condition.keep),
    )
    nothing = Conditioning(empty.expand_as(condition.text))

    def predict_velocity(latents: Tensor, sigma: float, given: Conditioning) -> Tensor:
        timestep = torch.full((given.text.shape[0],), 1000.0 * sigma, device=latents.device)
        latents = latents.expand(given.text.shape[0], *latents.shape[1:]) if len(latents) == 1 else latents
        return family.predict(model, latents, timestep, given, positions, dtype=dtype).float()

    def compute_velocity(latents: Tensor, sigma: float) -> Tensor:
        scale = text() if callable(text) else text
        if scale == 1 and reference is None:
            return predict_velocity(latents, sigma, condition)
        without_text, full = predict_velocity(torch.cat([latents, latents]), sigma, both).chunk(2)
        if reference is None or not condition.references:
            return apply_guidance(without_text, full, scale)
        return apply_reference_guidance(
            predict_velocity(latents, sigma, nothing), without_text, full, scale, reference
        )

    return compute_velocity


def _double_keep(keep: Tensor | None) -> Tensor | None:
    return keep if keep is None or keep.ndim == 1 else torch.cat([keep, keep])


def _double_batch(part: Tensor) -> Tensor:
    return part if part.shape[0] == 1 else torch.cat([part, part])


def solve_euler(
    velocity: Velocity,
    noise: Tensor,
    sigmas: Sequence[float] | Tensor,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Walk noise (B, C, T, h, w) down the grid `sigmas`: x <- x + (sigma_next - sigma) v(x, sigma).

    Latents are float32 between steps, as released, whatever the network computes in.
    `on_step(i, latents)` is called after each step.
    """
    latents = noise.float()
    grid = [float(sigma) for sigma in sigmas]
    with torch.no_grad():
        for i, (sigma, following) in enumerate(pairwise(grid)):
            latents = latents + (following - sigma) * velocity(latents, sigma).float()
            if on_step is not None:
                on_step(i, latents)
    return latents


def run_scheduler(
    predict: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    scheduler: Any,
    steps: int,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Walk noise (B, C, T, h, w) to latents by a diffusers scheduler: CogVideoX's DDIM, as released.

    answer: (latents, timestep 0..999 as a float) -> the guided prediction of v, same shape. The scheduler
    must be deterministic and of one prediction a step (CogVideoXDDIMScheduler is); its own settings say how
    timesteps are spaced and that predictions are of v.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    latents = noise.float() * scheduler.init_noise_sigma
    with torch.no_grad():
        for i, timestep in enumerate(scheduler.timesteps.tolist()):
            prediction = predict(latents, float(timestep)).float()
            latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
            if on_step is not None:
                on_step(i, latents)
    return latents


def compute_dynamic_scale(scale: float, progress: float) -> float:
    """CogVideoX's dynamic guidance: from 1 at progress 0 to 1 + scale at 1.

    1 + scale (1 - cos(pi progress^5)) / 2. progress is the share of the steps that are done. diffusers'
    pipeline passes (steps - timestep) / steps instead, which is far outside 0..1 and swings; it is off by
    default there.
    """
    return 1.0 + scale * (1.0 - math.cos(math.pi * progress**5)) / 2.0
