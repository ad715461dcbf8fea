"""Kaleido on stock WanTransformer3DModel computes what the released code computes."""

import pytest
import torch

from tests.training.goldens import frames_first, names, positions_of, read, references_of
from training.config import ObjectiveConfig, PositionsConfig
from training.generate.solvers import apply_guidance, solve_euler
from training.models.family import Conditioning
from training.models.wan import WanFamily
from training.objectives import FlowMatching, compute_sample_losses
from training.schedules import get_shift_factor, make_sampling_sigmas, shift_sigma

FAMILY = WanFamily()


@pytest.fixture(scope="module")
def model():
    from diffusers import WanTransformer3DModel

    weights, metadata = read("kaleido_weights_diffusers.safetensors")
    model = WanTransformer3DModel(**metadata["wan_config"])
    model.load_state_dict(weights)
    FAMILY.prepare_model(model)
    return model.eval()


def largest(a, b):
    return (a.float() - b.float()).abs().max().item()


@torch.no_grad()
@pytest.mark.parametrize("name", names("kaleido_A[0-5]*.safetensors"))
def test_forward_and_every_block_agree(model, name, monkeypatch):
    tensors, metadata = read(name)
    seen = watch(model, monkeypatch)
    output = FAMILY.predict(
        model,
        frames_first(tensors["latents"]),
        tensors["timestep"],
        Conditioning(tensors["text"], references_of(tensors)),
        positions_of(metadata),
    )
    assert largest(frames_first(output), tensors["out"]) <= 2e-4
    compared = [key for key in seen if key in tensors]
    assert {"block0_in", "block0_q", "block0_k", "block0_out"} <= set(compared)
    for key in compared:
        assert largest(seen[key], tensors[key]) <= 2e-4, key


def watch(model, monkeypatch):
    """What passes through the model under the names of the recordings, filled in by the next call."""
    from diffusers.models.transformers import transformer_wan

    seen = {}
    attend = transformer_wan.dispatch_attention_fn

    def attention(query, key, *arguments, **options):
        seen.setdefault("block0_q", query.transpose(1, 2))
        seen.setdefault("block0_k", key.transpose(1, 2))
        return attend(query, key, *arguments, **options)

    def forward(i, block):
        compute = block.forward

        def recorded(hidden_states, *arguments):
            seen.setdefault(f"block{i}_in", hidden_states)
            return seen.setdefault(f"block{i}_out", compute(hidden_states, *arguments))

        return recorded

    monkeypatch.setattr(transformer_wan, "dispatch_attention_fn", attention)
    for i, block in enumerate(model.blocks):
        monkeypatch.setattr(block, "forward", forward(i, block))
    return seen


@pytest.mark.parametrize("name", names("kaleido_A6_rfloss.safetensors"))
def test_the_training_loss_and_its_gradients_agree(model, name):
    tensors, _ = read(name)
    recorded, _ = read(name.replace("rfloss", "rfloss_grads"))
    clean, noise = (frames_first(tensors[key]) for key in ("latents", "noise"))
    tokens = clean.shape[-2] * clean.shape[-1] // (FAMILY.patch[1] * FAMILY.patch[2])
    sigma = shift_sigma(tensors["raw_sigma"], get_shift_factor(ObjectiveConfig(), tokens))
    assert largest(sigma, tensors["sigma"]) <= 1e-6
    noised = FlowMatching(ObjectiveConfig()).add_noise(clean, noise, sigma)
    assert largest(frames_first(noised.input), tensors["noised_input"]) <= 1e-6
    assert largest(frames_first(noised.target), tensors["target"]) <= 1e-6
    condition = Conditioning(tensors["text"], references_of(tensors))
    output = FAMILY.predict(model, noised.input, noised.timestep, condition, PositionsConfig())
    assert largest(frames_first(output), tensors["model_output"]) <= 3e-4
    losses = compute_sample_losses(output, noised.target)
    assert largest(losses, tensors["loss_per_sample"]) <= 1e-4
    try:
        losses.mean().backward()
        gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    finally:
        model.zero_grad(set_to_none=True)
    from training.convert.kaleido import convert_state_dict

    sat = convert_state_dict(gradients, "sat")
    compared = [key for key in recorded if key in sat]
    assert len(compared) == len(recorded) - 1  # all but the loss itself
    for key in compared:
        assert largest(sat[key], recorded[key]) <= 2e-5


@torch.no_grad()
@pytest.mark.parametrize("name", names("kaleido_A6_sampling*.safetensors"))
def test_guided_sampling_agrees_step_by_step(model, name):
    tensors, _ = read(name)
    scale = tensors["cfg_scale"].item()
    steps = sum(key.startswith("sigma_") for key in tensors)
    sigmas = make_sampling_sigmas(steps, 7.0)
    text = torch.cat([tensors["text_uncond"], tensors["text_cond"]])
    condition = Conditioning(text, references_of(tensors))
    raw, walked = [], []

    def velocity(latents, sigma):
        timestep = torch.full((2,), 1000.0 * sigma)
        both = FAMILY.predict(
            model, latents.expand(2, -1, -1, -1, -1), timestep, condition, PositionsConfig()
        )
        raw.append(both)
        return apply_guidance(*both.chunk(2), scale=scale)

    samples = solve_euler(
        velocity, frames_first(tensors["init_noise"]), sigmas, lambda i, timestep, x: walked.append(x)
    )
    for i in range(steps):
        assert abs(sigmas[i] - tensors[f"sigma_{i}"]) <= 1e-6
        assert largest(frames_first(raw[i]), tensors[f"net_out_{i}"]) <= 5e-4
    assert largest(frames_first(samples), tensors["samples"]) <= 2e-3


@torch.no_grad()
@pytest.mark.parametrize("name", names("kaleido_A7*.safetensors"))
def test_bfloat16_stays_near(model, name):
    import copy

    tensors, _ = read(name)
    small = copy.deepcopy(model).to(torch.bfloat16)
    condition = Conditioning(tensors["text"], references_of(tensors))
    latents = frames_first(tensors["latents"])
    output = FAMILY.predict(small, latents, tensors["timestep"], condition, PositionsConfig())
    error = (frames_first(output).float() - tensors["out"]).square().mean().sqrt()
    assert output.dtype == torch.bfloat16
    assert error / tensors["out"].square().mean().sqrt() <= 0.03
