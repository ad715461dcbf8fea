"""CogVideoX with references: the stock transformer on one more frame, 5B (rotary) and 2B (sin-cos) alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor, nn

from reprise.errors import RepriseError
from tests.training.tiny_cogvideox import CONFIG, tiny_cogvideox
from training.config import ObjectiveConfig, PositionsConfig
from training.models import cogvideox
from training.models.cogvideox import CogVideoXFamily
from training.models.family import Conditioning
from training.positions import make_cogvideox_positions, make_rotary_tables, split_cogvideox_head

FAMILY = CogVideoXFamily()
POSITIONS = PositionsConfig()
SIZES = [(8, 12), (8, 8), (4, 12)]


def inputs(height: int, width: int, frames: int = 3, batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {
        "noisy": draw(batch, 4, frames, height, width),
        "reference": draw(batch, 4, 1, height, width),
        "text": draw(batch, 6, 12),
        "timestep": torch.tensor([17.0, 803.0])[:batch],
    }


def predict(model: nn.Module, given: dict[str, Tensor], **changes: Any) -> Tensor:
    condition = Conditioning(given["text"], (given["reference"],), **changes)
    with torch.no_grad():
        return FAMILY.predict(model, given["noisy"], given["timestep"], condition, POSITIONS)


def make_prepared_model(**changes: Any) -> nn.Module:
    model = tiny_cogvideox(**changes)
    FAMILY.prepare_model(model)
    return model


@pytest.mark.parametrize("rotary", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_reference_is_one_more_frame_of_the_stock_transformer(rotary, size):
    given = inputs(*size)
    stock = tiny_cogvideox(use_rotary_positional_embeddings=rotary)
    frames = torch.cat([given["reference"], given["noisy"]], dim=2).transpose(1, 2)
    tables = None
    if rotary:
        grid = size[0] // 2, size[1] // 2
        region = get_resize_crop_region_for_grid(
            grid, CONFIG["sample_width"] // 2, CONFIG["sample_height"] // 2
        )
        tables = get_3d_rotary_pos_embed(CONFIG["attention_head_dim"], region, grid, frames.shape[1])
    with torch.no_grad():
        expected = stock(
            frames, given["text"], given["timestep"], image_rotary_emb=tables, return_dict=False
        )[0]
    ours = predict(make_prepared_model(use_rotary_positional_embeddings=rotary), given)
    torch.testing.assert_close(ours, expected[:, 1:].transpose(1, 2), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [*SIZES, (32, 64), (60, 90)])
def test_tables_are_those_of_diffusers(size):
    grid, base = (size[0] // 2, size[1] // 2), (30, 45)
    region = get_resize_crop_region_for_grid(grid, base[1], base[0])
    expected = get_3d_rotary_pos_embed(64, region, grid, 3)
    ours = make_rotary_tables(make_cogvideox_positions((3, *grid), 0, base), split_cogvideox_head(64))
    for table, one in zip(ours, expected, strict=True):
        torch.testing.assert_close(table.repeat_interleave(2, dim=-1), one, atol=2e-6, rtol=0)


def test_without_references_it_is_the_stock_model():
    given = inputs(8, 12)
    tables = get_3d_rotary_pos_embed(16, ((0, 0), (4, 6)), (4, 6), 3)
    with torch.no_grad():
        expected = tiny_cogvideox()(
            given["noisy"].transpose(1, 2),
            given["text"],
            given["timestep"],
            image_rotary_emb=tables,
            return_dict=False,
        )[0]
        ours = FAMILY.predict(
            make_prepared_model(), given["noisy"], given["timestep"], Conditioning(given["text"]), POSITIONS
        )
    torch.testing.assert_close(ours, expected.transpose(1, 2), atol=2e-5, rtol=1e-5)


def test_references_may_be_smaller_than_the_video_and_several():
    given, model = inputs(8, 12), make_prepared_model()
    small = given["reference"][..., :4, :6]
    condition = Conditioning(given["text"], (given["reference"], small[:1]))
    with torch.no_grad():
        out = FAMILY.predict(model, given["noisy"], given["timestep"], condition, POSITIONS)
    assert out.shape == given["noisy"].shape
    assert not torch.allclose(out, predict(model, given))


@pytest.mark.parametrize("rotary", [True, False])
def test_keeping_all_tokens_drops_none_and_each_sample_may_keep_others(rotary):
    given, model = inputs(8, 12), make_prepared_model(use_rotary_positional_embeddings=rotary)
    everything = torch.arange(24)
    torch.testing.assert_close(predict(model, given, keep=everything), predict(model, given))
    keep = torch.tensor([[0, 3, 4, 20], [1, 2, 9, 23]])
    both = predict(model, given, keep=keep)
    for i in range(2):
        single = {name: tensor[i : i + 1] for name, tensor in given.items()}
        torch.testing.assert_close(both[i : i + 1], predict(model, single, keep=keep[i]))


def test_dropped_tokens_are_not_seen():
    given, model = inputs(8, 12), make_prepared_model()
    keep = torch.tensor([0, 1, 6, 7])  # the patches of the upper left 4 x 4 latents
    other = {**given, "reference": given["reference"].clone()}
    other["reference"][..., 4:, :] = 7.0
    assert torch.equal(predict(model, given, keep=keep), predict(model, other, keep=keep))
    assert not torch.allclose(predict(model, given), predict(model, other))


def test_dropping_every_token_leaves_a_video_that_starts_one_frame_later():
    given, model = inputs(8, 12), make_prepared_model()
    out = predict(model, given, keep=torch.arange(0))
    assert out.shape == given["noisy"].shape and torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size_t": 2}, "1.5"),
        ({"in_channels": 8}, "image-to-video"),
        ({"patch_size": 4}, "patches"),
    ],
)
def test_other_kinds_of_cogvideox_are_refused_in_one_line(changes, message):
    with pytest.raises(RepriseError, match=message) as error:
        make_prepared_model(**changes)
    assert "\n" not in str(error.value)


def test_schemes_of_kaleido_are_refused():
    for positions in (PositionsConfig(scheme="shift_hw"), PositionsConfig(reference_time="zero")):
        with pytest.raises(RepriseError, match="CogVideoX"):
            FAMILY.prepare_model(tiny_cogvideox(), positions)


def test_the_objective_is_v_prediction_on_the_schedule_of_the_model():
    scheduler = CogVideoXDDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    objective = FAMILY.make_objective(ObjectiveConfig(), scheduler)
    clean, noise = torch.randn(2, 4, 1, 4, 4), torch.randn(2, 4, 1, 4, 4)
    steps = torch.tensor([3, 999])
    found = objective.add_noise(clean, noise, steps.float())
    torch.testing.assert_close(found.target, scheduler.get_velocity(clean, noise, steps))
    torch.testing.assert_close(found.input, scheduler.add_noise(clean, noise, steps))
    with pytest.raises(RepriseError, match="v_prediction"):
        FAMILY.make_objective(ObjectiveConfig(kind="flow_matching"), scheduler)


def test_gradients_reach_the_reference():
    given, model = inputs(8, 12), make_prepared_model()
    reference = given["reference"].requires_grad_()
    condition = Conditioning(given["text"], (reference,))
    FAMILY.predict(model, given["noisy"], given["timestep"], condition, POSITIONS).square().mean().backward()
    assert reference.grad.abs().sum() > 0


@pytest.mark.parametrize("rotary", [True, False])
def test_what_sampling_has_computed_of_positions_can_be_trained_with(rotary):
    given, model = inputs(8, 12), make_prepared_model(use_rotary_positional_embeddings=rotary)
    for cached in (cogvideox._make_tables, cogvideox._make_sincos):
        cached.cache_clear()
    condition = Conditioning(given["text"], (given["reference"],))
    with torch.inference_mode():
        FAMILY.predict(model, given["noisy"], given["timestep"], condition, POSITIONS)
    FAMILY.predict(model, given["noisy"], given["timestep"], condition, POSITIONS).square().mean().backward()
