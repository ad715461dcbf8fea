"""Noise levels, schedules, objectives and sampling satisfy their identities and match the released code."""

import math

import pytest
import torch

from tests.training.goldens import names, read
from training.config import ObjectiveConfig
from training.generate.solvers import apply_guidance, apply_reference_guidance, solve_euler
from training.objectives import FlowMatching, VPrediction, compute_sample_losses
from training.schedules import (
    compute_resolution_mu,
    get_shift_factor,
    make_sampling_sigmas,
    shift_sigma,
    transform_logit_normal,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_shift_of_480x832_is_the_released_one():
    assert math.exp(compute_resolution_mu(60 * 104 / 4)) == pytest.approx(2.056, abs=1e-3)
    assert math.exp(compute_resolution_mu(64 * 112 / 4)) == pytest.approx(2.138, abs=1e-3)


def test_a_shift_keeps_the_ends_and_is_undone_by_its_inverse():
    sigma = torch.tensor([0.0, 0.2, 0.9, 1.0], dtype=torch.float64)
    moved = shift_sigma(sigma, 3.0)
    assert moved[0] == 0 and moved[-1] == 1 and (moved[1:3] > sigma[1:3]).all()
    assert torch.allclose(shift_sigma(moved, 1 / 3.0), sigma)


def test_sampling_goes_from_only_noise_to_no_noise():
    grid = make_sampling_sigmas(50, 7.0)
    assert grid[0] == 1 and grid[-1] == 0 and (grid.diff() < 0).all()
    assert torch.allclose(make_sampling_sigmas(10, 1.0), torch.linspace(1, 0, 11))


def test_flow_matching_joins_clean_and_noise_by_a_straight_line():
    clean, noise = torch.randn(2, 2, 3, 1, 2, 2, generator=generator()).unbind()
    sigma = torch.tensor([0.25, 0.75])
    noised = FlowMatching(ObjectiveConfig()).add_noise(clean, noise, sigma)
    s = sigma.reshape(2, 1, 1, 1, 1)
    assert torch.allclose(noised.input - s * noised.target, clean, atol=1e-6)
    assert torch.allclose(noised.input + (1 - s) * noised.target, noise, atol=1e-6)
    assert noised.timestep.tolist() == [250, 750]


def test_v_prediction_recovers_clean_and_noise():
    alphas = torch.linspace(0.99, 0.0, 1000)
    clean, noise = torch.randn(2, 2, 3, 1, 2, 2, generator=generator()).unbind()
    noised = VPrediction(alphas).add_noise(clean, noise, torch.tensor([10.0, 999.0]))
    a = alphas[[10, 999]].sqrt().reshape(2, 1, 1, 1, 1)
    b = (1 - a.square()).sqrt()
    assert torch.allclose(a * noised.input - b * noised.target, clean, atol=1e-5)
    assert torch.allclose(b * noised.input + a * noised.target, noise, atol=1e-5)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_quantiles_are_those_of_the_levels_drawn(q):
    objective, draws = FlowMatching(ObjectiveConfig()), generator(1)
    levels = torch.stack([objective.draw_level(draws, 1560) for _ in range(4000)])
    assert (levels < objective.get_quantile(q, 1560)).float().mean().item() == pytest.approx(q, abs=0.03)


def test_the_same_seed_draws_the_same_level():
    objective = FlowMatching(ObjectiveConfig(shift="none"))
    assert objective.draw_level(generator(5), 24) == objective.draw_level(generator(5), 1560)


def test_losses_of_parts_add_up_to_the_whole():
    prediction, target = torch.randn(2, 2, 3, 1, 2, 8, generator=generator()).unbind()
    whole = compute_sample_losses(prediction, target)
    assert torch.allclose(whole, (prediction - target).square().flatten(1).mean(1))
    parts = [
        compute_sample_losses(prediction[..., cut], target[..., cut], elements=target[0].numel())
        for cut in (slice(0, 0), slice(0, 6), slice(6, 8))
    ]
    assert torch.allclose(sum(parts), whole)


def test_euler_is_exact_on_a_straight_flow():
    noise, clean = torch.randn(2, 1, 2, 1, 2, 2, generator=generator()).unbind()
    seen = []
    output = solve_euler(
        lambda x, sigma: noise - clean, noise, make_sampling_sigmas(5), lambda i, timestep, x: seen.append(i)
    )
    assert torch.allclose(output, clean, atol=1e-5) and seen == [0, 1, 2, 3, 4]


def test_guidance_on_references_of_scale_one_is_guidance_on_text():
    nothing_seen, references, both = torch.randn(3, 4, generator=generator()).unbind()
    assert torch.allclose(
        apply_reference_guidance(nothing_seen, references, both, 6.0, 1.0),
        apply_guidance(references, both, 6.0),
    )
    assert torch.allclose(apply_reference_guidance(nothing_seen, references, both, 0.0, 0.0), nothing_seen)


@pytest.mark.parametrize("name", names("kaleido_A6_sigma_shift.safetensors"))
def test_noise_levels_are_those_of_the_released_code(name):
    tensors, _ = read(name)
    raw = tensors["raw_sigma"]
    for (height, width), mu, expected in zip(
        tensors["latent_hw"].tolist(), tensors["mu"].tolist(), tensors["shifted_sigma"], strict=True
    ):
        tokens = height * width / 4
        assert compute_resolution_mu(tokens) == pytest.approx(mu, abs=1e-6)
        moved = shift_sigma(raw, get_shift_factor(ObjectiveConfig(), tokens))
        assert torch.allclose(moved, expected, rtol=0, atol=1e-6)
    drawn = transform_logit_normal(tensors["sampler_normal_draws"])
    assert torch.allclose(drawn, tensors["sampler_raw_draws"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", names("kaleido_A6_schedules.safetensors"))
def test_sampling_grids_are_those_of_the_released_code(name):
    tensors, _ = read(name)
    grids = [key for key in tensors if key.startswith("sigmas_")]
    assert grids
    for key in grids:
        steps = len(tensors[key]) - 1
        assert torch.allclose(make_sampling_sigmas(steps, 7.0), tensors[key], rtol=0, atol=1e-6)
