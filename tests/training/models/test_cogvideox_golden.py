"""CogVideoX with references, LoRA included: stock diffusers against what the released proxy replay computed.

Tolerances are those that its recordings state. Sizes, steps and adapters are read from the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.training.goldens import FOLDER, frames_first, names, read
from training.config import LoraConfig, PositionsConfig
from training.generate.solvers import apply_guidance, run_scheduler
from training.lora.adapters import load_lora, merge_lora, unmerge_lora
from training.models import sequence_attention
from training.models.cogvideox import CogVideoXFamily
from training.models.family import Conditioning
from training.positions import make_cogvideox_positions, make_rotary_tables, split_cogvideox_head

LORA_FILE = "proxyreplay_lora_official_format.safetensors"
RELEASED = PositionsConfig(crop="released")


def family(metadata: dict[str, Any]) -> CogVideoXFamily:
    config = metadata["model_config"]
    return CogVideoXFamily((1, config["patch_size"], config["patch_size"]))


def base_model(metadata: dict[str, Any]) -> nn.Module:
    model = CogVideoXTransformer3DModel(**metadata["model_config"])
    model.load_state_dict(load_file(FOLDER / "proxyreplay_weights_base.safetensors"))
    return model.eval()


def lora_config(metadata: dict[str, Any], **changes: Any) -> LoraConfig:
    recorded = metadata["lora"]
    settings: dict[str, Any] = {"rank": recorded["r"], "alpha": recorded["lora_alpha"]}
    return LoraConfig(**{**settings, "targets": tuple(recorded["target_modules"]), **changes})


def with_lora(metadata: dict[str, Any], **changes: Any) -> nn.Module:
    model = base_model(metadata)
    family(metadata).prepare_model(model)
    load_lora(model, FOLDER / LORA_FILE, lora_config(metadata, **changes), "cogvideox")
    return model


def predict(model: nn.Module, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Tensor:
    """Of a recorded input, frames first as recorded; the family repeats a reference batch of 1."""
    condition = Conditioning(tensors["text"], (frames_first(tensors["ref"]),))
    latents = frames_first(tensors["latents"])
    with torch.no_grad():
        return frames_first(
            family(metadata).predict(model, latents, tensors["timestep"], condition, RELEASED)
        )


@contextmanager
def record_values(model: nn.Module, text: int, references: int) -> Iterator[dict[str, Tensor]]:
    """Values inside a forward pass, under the names of the recordings."""
    seen: dict[str, Tensor] = {}
    handles = []

    def block_hook(i: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Tensor], output: Any) -> None:
            both = {"in": (kwargs["hidden_states"], kwargs["encoder_hidden_states"]), "out": output}
            for side, (tokens, text_tokens) in both.items():
                seen[f"block{i}.{side}_ref"] = tokens[:, :references]
                seen[f"block{i}.{side}_video"] = tokens[:, references:]
                seen[f"block{i}.{side}_text"] = text_tokens

        return hook

    def norm_hook(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tokens, text_tokens, gate, text_gate = output
            seen[f"{name}.norm_ref"], seen[f"{name}.norm_video"] = (
                tokens[:, :references],
                tokens[:, references:],
            )
            seen[f"{name}.norm_text"], seen[f"{name}.gate_text"] = text_tokens, text_gate
            wide = gate.expand(-1, tokens.shape[1], -1)
            seen[f"{name}.gate_ref"], seen[f"{name}.gate_video"] = wide[:, :1], wide[:, -1:]

        return hook

    for i, block in enumerate(model.transformer_blocks):
        handles.append(block.register_forward_hook(block_hook(i), with_kwargs=True))
        if i == 0:
            handles += [
                norm.register_forward_hook(norm_hook(f"block0.{name}"))
                for name, norm in (("norm1", block.norm1), ("norm2", block.norm2))
            ]
            handles += [
                norm.linear.register_forward_hook(
                    lambda module, args, output, name=name: seen.update(
                        {f"block0.{name}.linear_call0": output, f"block0.{name}.linear_call1": output}
                    )
                )
                for name, norm in (("norm1", block.norm1), ("norm2", block.norm2))
            ]
    dispatch = sequence_attention.dispatch_attention_fn

    def spy(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        for name, part in (("q", query), ("k", key), ("v", value)):
            seen.setdefault(f"block0.{name}", part.transpose(1, 2))
        return dispatch(query, key, value, **options)

    sequence_attention.dispatch_attention_fn = spy
    try:
        yield seen
    finally:
        sequence_attention.dispatch_attention_fn = dispatch
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(
    "name",
    names("proxyreplay_B0*.safetensors")
    + names("proxyreplay_B1*.safetensors")
    + names("proxyreplay_B2*.safetensors"),
)
def test_the_forward_pass_and_all_that_happens_in_it_are_those_of_the_released_code(name):
    tensors, metadata = read(name)
    if "B0" in name:
        model = base_model(metadata)
        family(metadata).prepare_model(model)
    else:
        model = with_lora(metadata)
    patch = metadata["model_config"]["patch_size"]
    references = tensors["ref"].shape[-2] * tensors["ref"].shape[-1] // patch**2
    with record_values(model, tensors["text"].shape[1], references) as seen:
        out = predict(model, tensors, metadata)
    compared = sorted(set(seen) & set(tensors))
    assert len(compared) >= 25
    assert set(compared) >= {key for key in tensors if key.startswith("block")}
    for key in compared:
        torch.testing.assert_close(
            seen[key], tensors[key], atol=1e-4, rtol=0, msg=lambda m, k=key: f"{k}: {m}"
        )
    torch.testing.assert_close(out, tensors["out"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", names("proxyreplay_B0*.safetensors") + names("proxyreplay_B1*.safetensors"))
def test_the_rotary_tables_of_references_and_video_are_those_recorded(name):
    tensors, metadata = read(name)
    model = metadata["model_config"]
    patch = model["patch_size"]
    frames, _, height, width = tensors["latents"].shape[1:]
    grid = height // patch, width // patch
    base = model["sample_height"] // patch, model["sample_width"] // patch
    for part, size, first in (("ref", (1, *grid), 0), ("video", (frames, *grid), 1)):
        where = make_cogvideox_positions(size, first, base, "released")
        for table, kind in zip(
            make_rotary_tables(where, split_cogvideox_head(model["attention_head_dim"])),
            ("cos", "sin"),
            strict=True,
        ):
            expected = tensors[f"{part}_rope_{kind}"]
            torch.testing.assert_close(table.repeat_interleave(2, dim=-1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", names("proxyreplay_B3*.safetensors"))
def test_released_lora_acts_on_all_tokens_and_reference_only_only_on_references(name):
    tensors, metadata = read(name)
    # In the recording LoRA is disabled for the modulation of video and text, as the paper describes.
    exact = predict(with_lora(metadata, scope="reference_only"), tensors, metadata)
    torch.testing.assert_close(exact, tensors["out"], atol=1e-4, rtol=0)
    released = predict(with_lora(metadata), tensors, metadata)
    assert (released - tensors["out"]).abs().max() > 0.1


@pytest.mark.parametrize("name", names("proxyreplay_B4*.safetensors"))
def test_a_guided_sampling_run_ends_where_the_released_pipeline_did(name):
    tensors, metadata = read(name)
    settings = metadata["settings"]
    if settings["dynamic_cfg"]:
        pytest.skip("recorded with dynamic guidance")
    known = set(CogVideoXDDIMScheduler().config)
    scheduler = CogVideoXDDIMScheduler(**{k: v for k, v in settings["scheduler"].items() if k in known})
    model, kind = with_lora(metadata), family(metadata)
    text = torch.cat([tensors["negative_prompt_embeds"], tensors["prompt_embeds"]])
    condition = Conditioning(text, (frames_first(tensors["ref"]),))
    outputs: list[Tensor] = []
    timesteps: list[float] = []

    def predict_both(latents: Tensor, timestep: float) -> Tensor:
        both = torch.cat([latents, latents])
        both = kind.predict(model, both, torch.full((2,), timestep), condition, RELEASED)
        outputs.append(both)
        timesteps.append(timestep)
        return apply_guidance(*both.chunk(2), scale=settings["guidance"])

    out = run_scheduler(predict_both, frames_first(tensors["init_latents"]), scheduler, settings["steps"])
    for i, timestep in enumerate(timesteps):
        assert set(tensors[f"timestep_{i}"].tolist()) == {timestep}
    torch.testing.assert_close(frames_first(outputs[0]), tensors["noise_pred_0"], atol=1e-4, rtol=0)
    torch.testing.assert_close(frames_first(out), tensors["latents"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", names("proxyreplay_B5*.safetensors"))
def test_bf16_is_as_close_to_float32_as_the_released_code(name):
    tensors, metadata = read(name)
    out = predict(with_lora(metadata).to(torch.bfloat16), tensors, metadata).float()
    expected = tensors["out_fp32"]
    assert ((out - expected).square().mean() / expected.square().mean()).sqrt() < 0.03
    recorded_bf16 = tensors["out"].float()
    assert ((out - recorded_bf16).square().mean() / recorded_bf16.square().mean()).sqrt() < 0.03


@pytest.mark.parametrize("name", names("proxyreplay_B6*.safetensors"))
def test_the_older_rotary_formula_is_there_by_name(name):
    tensors, metadata = read(name)
    model = metadata["model_config"]
    patch = model["patch_size"]
    base = model["sample_height"] // patch, model["sample_width"] // patch
    found = 0
    for key in tensors:
        match = re.fullmatch(r"cos_(\d+)x(\d+)_t(\d+)(_rows)?", key)
        if match is None:
            continue
        height, width, frames = (int(match[i]) for i in (1, 2, 3))
        size = (frames, height // 8 // patch, width // 8 // patch)
        tables = make_rotary_tables(
            make_cogvideox_positions(size, 0, base, "released"),
            split_cogvideox_head(model["attention_head_dim"]),
        )
        for kind, table in zip(("cos", "sin"), tables, strict=True):
            ours = table.repeat_interleave(2, dim=-1)
            if match[4]:
                ours = ours[tensors[key.replace("cos_", "rows_").removesuffix("_rows")]]
            torch.testing.assert_close(ours, tensors[key.replace("cos_", f"{kind}_")], atol=1e-6, rtol=0)
        found += 1
    assert found


@pytest.mark.parametrize("name", names("proxyreplay_B1*.safetensors"))
def test_merged_lora_computes_the_same_and_comes_out_again(name):
    tensors, metadata = read(name)
    model = with_lora(metadata)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    merge_lora(model)
    torch.testing.assert_close(predict(model, tensors, metadata), tensors["out"], atol=1e-4, rtol=0)
    unmerge_lora(model)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], atol=1e-6, rtol=1e-6)
