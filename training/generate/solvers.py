"""From noise to latents, for the pipeline and validation: guidance, Euler steps, DDIM steps."""

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
from training.objectives import ObjectiveName
from training.schedules import make_sampling_sigmas

#: (latents (B, C, T, h, w), sigma) -> velocity, of the same shape.
Velocity = Callable[[Tensor, float], Tensor]
#: Called after a step: (step, its timestep 0..1000, latents (B, C, T, h, w)) -> the latents of the next step;
#: None: the same.
StepCallback = Callable[[int, float, Tensor], Tensor | None]


def apply_guidance(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: u + scale (c - u).

    Both predictions see the references, so it acts only on the text.
    """
    return unconditional + scale * (conditional - unconditional)


def apply_reference_guidance(
    nothing: Tensor, references: Tensor, both: Tensor, text: float, reference: float
) -> Tensor:
    """Guidance with separate scales: v0 + reference (v_ref - v0) + text (v_ref_text - v_ref).

    With reference = 1 this is `apply_guidance`.

    Args:
        nothing: v0, with neither text nor references.
        references: v_ref, with only the references.
        both: v_ref_text, with both.
        text: scale of the text.
        reference: scale of the references.
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
    """Return the network under guidance, as a function of latents and sigma.

    The empty and the given text go through the network as one batch, [empty, text], with the same
    references, as released.

    Args:
        family: of the model.
        model: the transformer.
        condition: of batch B.
        empty: (B or 1, L, D), the embedding of the empty (or negative) prompt.
        positions: where references lie.
        text: scale of the text, or a function that returns the scale of the current step. 1 without a
            `reference` scale: no guidance, and half the work.
        reference: scale of the references; it needs a second pass without references.
        dtype: of the computation; None: of the model's weights.
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


def run_solver(
    objective: ObjectiveName,
    velocity: Velocity,
    noise: Tensor,
    steps: int,
    *,
    flow_shift: float = 7.0,
    scheduler: Any = None,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Turn noise (B, C, T, h, w) into latents by the solver that belongs to an objective.

    Args:
        objective: flow_matching: Euler steps; v_prediction: the steps of `scheduler`.
        velocity: the network's prediction, under guidance.
        noise: where the walk starts.
        steps: predictions of the network.
        flow_shift: of the grid of Euler's steps.
        scheduler: the model's diffusers scheduler; v_prediction needs it.
        on_step: called after each step.
    """
    if objective == "flow_matching":
        return solve_euler(velocity, noise, make_sampling_sigmas(steps, flow_shift), on_step)
    return run_scheduler(
        lambda latents, timestep: velocity(latents, timestep / 1000.0), noise, scheduler, steps, on_step
    )


def solve_euler(
    velocity: Velocity,
    noise: Tensor,
    sigmas: Sequence[float] | Tensor,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Walk noise (B, C, T, h, w) down the grid `sigmas`: x <- x + (sigma_next - sigma) v(x, sigma).

    Latents are float32 between steps, as released, in whatever type the network computes.
    """
    latents = noise.float()
    grid = [float(sigma) for sigma in sigmas]
    with torch.no_grad():
        for i, (sigma, following) in enumerate(pairwise(grid)):
            latents = latents + (following - sigma) * velocity(latents, sigma).float()
            if on_step is not None:
                latents = _take_changed(on_step(i, 1000.0 * sigma, latents), latents)
    return latents


def run_scheduler(
    predict: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    scheduler: Any,
    steps: int,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Walk noise (B, C, T, h, w) to latents by a diffusers scheduler: CogVideoX's DDIM, as released.

    Args:
        predict: (latents, timestep 0..999) -> the guided prediction of v, of the latents' shape.
        noise: where the walk starts.
        scheduler: deterministic, with one prediction a step (as CogVideoXDDIMScheduler). Its own settings
            say how timesteps are spaced and that predictions are of v.
        steps: predictions of the network.
        on_step: called after each step.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    latents = noise.float() * scheduler.init_noise_sigma
    with torch.no_grad():
        for i, timestep in enumerate(scheduler.timesteps.tolist()):
            prediction = predict(latents, float(timestep)).float()
            latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
            if on_step is not None:
                latents = _take_changed(on_step(i, float(timestep), latents), latents)
    return latents


def _take_changed(changed: Tensor | None, latents: Tensor) -> Tensor:
    return latents if changed is None else changed.to(latents)


def compute_dynamic_scale(scale: float, progress: float) -> float:
    """CogVideoX's dynamic guidance: 1 + scale (1 - cos(pi progress^5)) / 2, from 1 to 1 + scale.

    diffusers' pipeline passes (steps - timestep) / steps as the progress, which is far outside 0..1, so that
    the scale swings; there it is off by default.

    Args:
        scale: by which it grows.
        progress: share of the steps that are done, 0..1.
    """
    return 1.0 + scale * (1.0 - math.cos(math.pi * progress**5)) / 2.0
