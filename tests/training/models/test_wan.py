"""Wan with references equals a second implementation, and has properties that hold for any weights."""

import json

import pytest
import torch
from safetensors import safe_open

from reprise.errors import RepriseError
from tests.training import plain_wan
from training.config import PositionsConfig
from training.convert.kaleido import convert_state_dict
from training.loop.parallel import share_sequences
from training.models.family import Conditioning, take_own_part
from training.models.packing import SequenceShard, unpack_strip
from training.models.wan import WanFamily
from training.positions import make_sequence_positions

FAMILY = WanFamily()


@pytest.fixture(scope="module")
def recorded():
    with safe_open(plain_wan.FILE, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, json.loads(file.metadata()["config"])


def build(recorded, **changes):
    from diffusers import WanTransformer3DModel

    tensors, config = recorded
    model = WanTransformer3DModel(
        num_attention_heads=config["heads"],
        attention_head_dim=config["hidden"] // config["heads"],
        in_channels=config["channels"],
        out_channels=config["channels"],
        text_dim=config["text"],
        freq_dim=config["freq"],
        ffn_dim=config["ffn"],
        num_layers=config["layers"],
    )
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if "weights." in key}
    model.load_state_dict(convert_state_dict(weights, "diffusers"))
    return model.eval()


@pytest.fixture(scope="module")
def model(recorded):
    model = build(recorded)
    FAMILY.prepare_model(model)
    return model


def inputs(recorded):
    tensors = recorded[0]
    references = tuple(tensors[f"reference{i}"][None] for i in range(2))
    return tensors["video"][None], tensors["timestep"][None], Conditioning(tensors["text"][None], references)


def options(case):
    scheme, shift, place = case.split(",")
    return PositionsConfig(scheme=scheme, shift=shift, place=place)


@torch.no_grad()
@pytest.mark.parametrize("case", plain_wan.CASES)
def test_every_scheme_computes_what_the_second_implementation_recorded(model, recorded, case):
    video, timestep, condition = inputs(recorded)
    output = FAMILY.predict(model, video, timestep, condition, options(case))
    assert torch.allclose(output[0], recorded[0][f"out.{case}"], rtol=0, atol=2e-5)
    sizes = [(1, part.shape[-2] // 2, part.shape[-1] // 2) for part in condition.references]
    assert torch.equal(
        make_sequence_positions(sizes, (3, 3, 4), options(case)), recorded[0][f"positions.{case}"]
    )


def test_the_recording_is_what_the_second_implementation_computes(recorded):
    tensors, config = recorded
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if "weights." in key}
    name = "no_overlap,video,before"
    references = [tensors["reference0"], tensors["reference1"]]
    segments, positions, which = plain_wan.case(name, tensors["video"], references)
    again = plain_wan.forward(
        weights, config["heads"], segments, positions, which, tensors["text"], float(tensors["timestep"])
    )
    assert torch.allclose(again.float(), tensors[f"out.{name}"], rtol=0, atol=1e-6)


@torch.no_grad()
def test_schemes_differ_but_in_the_order_of_the_sequence(model, recorded):
    video, timestep, condition = inputs(recorded)
    outputs = {case: recorded[0][f"out.{case}"] for case in plain_wan.CASES}
    # Attention has no mask: the order of tokens has no effect, only their positions have.
    assert torch.allclose(outputs["none,fixed_80,after"], outputs["future,fixed_80,before"], atol=1e-6)
    several = [outputs[case] for case in plain_wan.CASES if case != "none,fixed_80,after"]
    for i, one in enumerate(several):
        assert all((one - other).abs().max() > 1e-3 for other in several[:i])
    unrotated = FAMILY.predict(model, video, timestep, condition, PositionsConfig(scheme="unrotated"))
    assert (unrotated[0] - outputs["none,fixed_80,before"]).abs().max() > 1e-3


@torch.no_grad()
def test_without_references_it_is_the_stock_model(model, recorded):
    video, timestep, condition = inputs(recorded)
    plain = Conditioning(condition.text)
    stock = build(recorded)(video, timestep, condition.text, return_dict=False)[0]
    assert torch.allclose(FAMILY.predict(model, video, timestep, plain, PositionsConfig()), stock, atol=1e-4)


@torch.no_grad()
def test_equal_timesteps_per_token_are_one_timestep(model, recorded):
    video, timestep, condition = inputs(recorded)
    whole = FAMILY.predict(model, video, timestep, condition, PositionsConfig())
    tokens = FAMILY.get_layout(video, condition, PositionsConfig()).total_tokens
    each = FAMILY.predict(model, video, timestep.expand(1, tokens), condition, PositionsConfig())
    frames = timestep.expand(1, video.shape[2])
    split = FAMILY.predict(model, video, frames, condition, PositionsConfig(), reference_timestep=timestep)
    assert torch.allclose(whole, each, atol=1e-5) and torch.allclose(whole, split, atol=1e-5)
    clean = FAMILY.predict(model, video, timestep, condition, PositionsConfig(reference_time="zero"))
    assert (clean - whole).abs().max() > 1e-3


@torch.no_grad()
def test_channels_of_references_change_nothing_until_they_are_trained(recorded):
    model, positions = build(recorded), PositionsConfig(scheme="channel_concat")
    FAMILY.prepare_model(model, positions, references=2)
    assert model.config.in_channels == 3 * model.config.out_channels
    video, timestep, condition = inputs(recorded)
    reference = condition.references[0]
    plain = FAMILY.predict(model, video, timestep, Conditioning(condition.text), positions)
    seen = Conditioning(condition.text, (reference, -reference))
    assert torch.equal(FAMILY.predict(model, video, timestep, seen, positions), plain)
    model.patch_embedding.weight[:, 4:].normal_(generator=torch.Generator().manual_seed(0))
    trained = FAMILY.predict(model, video, timestep, seen, positions)
    assert trained.shape == video.shape and not torch.allclose(trained, plain, atol=1e-2)
    swapped = Conditioning(condition.text, (-reference, reference))
    assert not torch.allclose(FAMILY.predict(model, video, timestep, swapped, positions), trained, atol=1e-2)
    with pytest.raises(RepriseError, match="input channels for 2"):
        FAMILY.predict(model, video, timestep, Conditioning(condition.text, (reference,) * 3), positions)
    with pytest.raises(RepriseError, match="of the video's size"):
        FAMILY.predict(model, video, timestep, condition, positions)


@pytest.mark.parametrize("place", ["before", "after"])
def test_each_rank_of_a_group_predicts_its_own_tokens(model, recorded, place, monkeypatch):
    # What is exchanged is tested with processes; here, each rank's range, with a model without attention.
    video, timestep, condition = inputs(recorded)
    positions, size = PositionsConfig(place=place), 4
    assert (
        FAMILY.get_layout(video, condition, positions).total_tokens == 50
    )  # of which 14 are the references'
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "forward", lambda self, strip, *_, **__: (strip,))
        shards = [SequenceShard(rank, size) for rank in range(size)]
        parts = [FAMILY.predict(model, video, timestep, condition, positions, shard=one) for one in shards]
    for part, shard in zip(parts, shards, strict=True):
        assert torch.equal(part, take_own_part(FAMILY, video, condition, positions, shard))
    (joined,) = unpack_strip(torch.cat(parts, -1), [(3, 6, 8)], FAMILY.patch)
    assert torch.equal(joined, video)


def test_heads_that_cannot_be_shared_are_one_clear_line(model):
    class Group:
        sequence_size = 3

    with pytest.raises(RepriseError, match="2 attention heads"):
        share_sequences(model, FAMILY, Group)
