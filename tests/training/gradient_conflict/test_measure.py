"""Gradient conflict: against brute force on flat vectors, and the projections that PCGrad promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.gradient_conflict.measure import (
    GradientBuffer,
    compare_groups,
    compute_moments,
    fit_decay,
    get_module_kind,
    make_layer_grouper,
    project_gradients,
)

NAMES = [
    "patch_embed.proj.weight",
    "transformer_blocks.0.attn1.to_q.lora_A.default.weight",
    "transformer_blocks.0.norm1.linear.weight",
    "transformer_blocks.1.ff.net.2.weight",
    "proj_out.weight",
]


def flat(gradients: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in names]).double()


@pytest.fixture
def pair() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(4, 3), (7,), (5, 2), (11,), (3, 3)]
    draw = [
        {name: torch.randn(shape, generator=generator) for name, shape in zip(NAMES, shapes, strict=True)}
        for _ in range(2)
    ]
    return draw[0], draw[1]


def test_cosine_and_norms_are_those_of_the_flat_vectors_whatever_the_piece(pair):
    a, b = (flat(one, NAMES) for one in pair)
    for piece in (1, 4, 1 << 20):
        whole = compare_groups(compute_moments(*pair, piece=piece), [])["all"]
        assert whole.cosine == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-12)
        assert (whole.first_norm, whole.second_norm) == pytest.approx(
            (float(a.norm()), float(b.norm())), rel=1e-12
        )


def test_groups_are_the_flat_vectors_of_their_parameters(pair):
    groups = compare_groups(compute_moments(*pair), [make_layer_grouper(2, 2), get_module_kind])
    expected = {
        "all": NAMES,
        "layers/embedding": NAMES[:1],
        "layers/00-00": NAMES[1:3],
        "layers/01-01": NAMES[3:4],
        "layers/head": NAMES[4:],
        "modules/embedding": [NAMES[0], NAMES[4]],
        "modules/attention": NAMES[1:2],
        "modules/norm": NAMES[2:3],
        "modules/feed_forward": NAMES[3:4],
    }
    assert set(groups) == set(expected)
    for group, names in expected.items():
        a, b = (flat(one, names) for one in pair)
        assert groups[group].cosine == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-12)


def test_moments_of_shards_add_up_to_those_of_the_whole(pair):
    whole = compute_moments(*pair)
    halves = [
        compute_moments(
            *({name: one.flatten()[part::2] for name, one in gradients.items()} for gradients in pair)
        )
        for part in (0, 1)
    ]
    for name in NAMES:
        torch.testing.assert_close(halves[0][name] + halves[1][name], whole[name])


def test_two_losses_on_one_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    inputs, targets = torch.randn(2, 8, 6), torch.randn(2, 8, 2)
    gradients = []
    for x, y in zip(inputs, targets, strict=True):
        model.zero_grad()
        (model(x) - y).square().mean().backward()
        gradients.append({name: one.grad.clone() for name, one in model.named_parameters()})
    a, b = (flat(one, list(one)) for one in gradients)
    assert compare_groups(compute_moments(*gradients), [])["all"].cosine == pytest.approx(
        float(torch.nn.functional.cosine_similarity(a, b, dim=0)), abs=1e-12
    )


def test_a_gradient_that_is_zero_conflicts_with_nothing():
    zero, some = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    assert compare_groups(compute_moments(zero, some), [])["all"].cosine == 0.0
    assert torch.equal(project_gradients(some, zero)["w"], some["w"])


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_pcgrad_takes_out_exactly_what_points_against_the_other_task(pair, sign):
    own, other = pair
    a, b = flat(own, NAMES), flat(other, NAMES)
    # Turn `other` so that the two conflict (sign -1) or agree (sign 1).
    turn = sign * math.copysign(1.0, float(a @ b))
    other = {name: turn * one for name, one in other.items()}
    projected = flat(project_gradients(own, other), NAMES)
    b = flat(other, NAMES)
    if sign > 0:
        assert torch.equal(projected, a)
    else:
        torch.testing.assert_close(projected, a - (a @ b) / (b @ b) * b, rtol=1e-6, atol=1e-6)
        assert abs(float(projected @ b)) < 1e-5


def test_the_buffer_returns_the_mean_of_the_last_k():
    buffer = GradientBuffer(2)
    assert buffer.average_gradients("video") is None
    for value in (1.0, 2.0, 4.0):
        buffer.add_gradients("video", {"w": torch.full((2,), value)})
    buffer.add_gradients("image", {"w": torch.zeros(2)})
    assert torch.equal(buffer.average_gradients("video")["w"], torch.full((2,), 3.0))
    assert buffer.list_other_tasks("image") == ["video"]
    again = GradientBuffer(2)
    again.load_state_dict(buffer.state_dict())
    assert torch.equal(again.average_gradients("video")["w"], buffer.average_gradients("video")["w"])


def test_the_buffer_keeps_copies():
    buffer, gradient = GradientBuffer(), torch.ones(2)
    buffer.add_gradients("video", {"w": gradient})
    gradient.zero_()
    assert torch.equal(buffer.average_gradients("video")["w"], torch.ones(2))


@pytest.mark.parametrize(("initial", "rate"), [(-0.6, 0.01), (0.3, 0.1), (-0.2, 0.0), (-0.1, -0.002)])
def test_the_decay_of_a_known_curve_is_found(initial, rate):
    steps = np.arange(0, 1000, 50)
    found = fit_decay(steps, initial * np.exp(-rate * steps))
    assert (found.initial, found.rate) == pytest.approx((initial, rate), rel=1e-5, abs=1e-8)
    if rate:
        assert found.r2 == pytest.approx(1.0)


def test_the_decay_is_the_least_squares_one_under_noise():
    random = np.random.default_rng(0)
    steps = np.arange(0, 1000, 20)
    values = -0.5 * np.exp(-0.006 * steps) + 0.05 * random.standard_normal(len(steps))
    found = fit_decay(steps, values)
    error = np.square(values - found.predict_cosines(steps)).sum()
    for initial in np.linspace(-0.8, -0.2, 61):
        for rate in np.geomspace(0.001, 0.05, 80):
            assert error <= np.square(values - initial * np.exp(-rate * steps)).sum() + 1e-9


def test_no_decay_without_points():
    assert fit_decay([0, 1], [0.1, 0.2]) is None
    assert fit_decay([0, 1, 2], [0.0, 0.0, 0.0]) is None
