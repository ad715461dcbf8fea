"""Wan 2.2 TI2V as proxy replay needs it: a clean first frame, timesteps per token, dropped tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from reprise.errors import RepriseError
from training.config import ObjectiveConfig, PositionsConfig
from training.models.family import Conditioning
from training.models.wan import WanFamily
from training.objectives import FlowMatching

# Wan 2.2 TI2V-5B has 48 latent channels, a spatial scale of 16 and one timestep per token; the rest is as in
# Wan 2.1.
FAMILY = WanFamily(spatial_scale=16)
FIRST = PositionsConfig(scheme="first_frame")


def tiny_ti2v(prepare: bool = True) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=48,
            out_channels=48,
            text_dim=10,
            freq_dim=8,
            ffn_dim=20,
            num_layers=2,
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.2 * torch.randn_like(parameter) + (parameter.ndim == 1))
    if prepare:
        FAMILY.prepare_model(model)
    return model.eval()


@pytest.fixture
def given() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {"noisy": draw(2, 48, 3, 4, 6), "reference": draw(2, 48, 1, 4, 6), "text": draw(2, 5, 10)}


def predict(
    model: nn.Module, given: dict[str, Tensor], positions: PositionsConfig = FIRST, keep: Any = None
) -> Tensor:
    condition = Conditioning(given["text"], (given["reference"],), keep)
    with torch.no_grad():
        return FAMILY.predict(model, given["noisy"], torch.tensor([300.0, 700.0]), condition, positions)


@pytest.mark.parametrize("time", ["video", "zero"])
def test_a_clean_first_frame_is_the_stock_model_with_one_timestep_per_token(given, time):
    """As the stock TI2V pipeline calls it: frames 0..T, (B, tokens) timesteps, 0 for the clean frame."""
    frames = torch.cat([given["reference"], given["noisy"]], dim=2)
    steps = torch.tensor([300.0, 700.0])[:, None].repeat(1, 4 * 6)
    if time == "zero":
        steps[:, :6] = 0.0
    with torch.no_grad():
        expected = tiny_ti2v(prepare=False)(frames, steps, given["text"], return_dict=False)[0][:, :, 1:]
    ours = predict(tiny_ti2v(), given, PositionsConfig(scheme="first_frame", reference_time=time))
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-4)


def test_the_clean_frames_timestep_matters(given):
    model = tiny_ti2v()
    zero = predict(model, given, PositionsConfig(scheme="first_frame", reference_time="zero"))
    assert not torch.allclose(zero, predict(model, given))


def test_the_objective_is_flow_matching():
    assert isinstance(FAMILY.make_objective(ObjectiveConfig()), FlowMatching)
    with pytest.raises(RepriseError, match="flow_matching"):
        FAMILY.make_objective(ObjectiveConfig(kind="v_prediction"))


@pytest.mark.parametrize(
    "positions",
    [
        FIRST,
        PositionsConfig(scheme="first_frame", reference_time="zero"),
        PositionsConfig(),
        PositionsConfig(place="after"),
    ],
)
def test_dropped_reference_tokens_are_not_seen_and_each_sample_may_keep_others(given, positions):
    model = tiny_ti2v()
    torch.testing.assert_close(
        predict(model, given, positions, torch.arange(6)), predict(model, given, positions)
    )
    keep = torch.tensor([[0, 2], [3, 5]])
    both = predict(model, given, positions, keep)
    for i in range(2):
        single = {name: tensor[i : i + 1] for name, tensor in given.items()}
        condition = Conditioning(single["text"], (single["reference"],), keep[i])
        with torch.no_grad():
            one = FAMILY.predict(
                model, single["noisy"], torch.tensor([[300.0], [700.0]][i]), condition, positions
            )
        torch.testing.assert_close(both[i : i + 1], one, atol=1e-5, rtol=1e-4)
    other = {**given, "reference": given["reference"].clone()}
    other["reference"][0, :, :, :2, 2:4] = 9.0  # the patch of token 1, which sample 0 does not keep
    assert torch.equal(predict(model, other, positions, keep), both)


def test_channel_concat_has_no_tokens_to_drop(given):
    with pytest.raises(RepriseError, match="channel_concat"):
        predict(tiny_ti2v(), given, PositionsConfig(scheme="channel_concat"), torch.arange(2))
