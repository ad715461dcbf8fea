"""LoRA on stock transformers: its modules, the tokens it acts on, and files that diffusers loads."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.lora_pipeline import CogVideoXLoraLoaderMixin, WanLoraLoaderMixin
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reprise.errors import RepriseError
from tests.training.models.test_cogvideox import FAMILY, POSITIONS, inputs, make_prepared_model, predict
from tests.training.tiny_cogvideox import tiny_cogvideox
from training.config import LoraConfig, PositionsConfig
from training.lora.adapters import (
    add_lora,
    get_lora_state,
    load_lora,
    merge_lora,
    remove_lora,
    save_lora,
    unmerge_lora,
)
from training.models.family import Conditioning
from training.models.wan import WanFamily

SMALL = LoraConfig(rank=2, alpha=1, dropout=0.0)


def add_trained_lora(model: nn.Module, config: LoraConfig = SMALL, family: str = "cogvideox") -> nn.Module:
    """LoRA whose B is no longer zero."""
    add_lora(model, config, family)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


def tiny_wan() -> nn.Module:
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=10,
        freq_dim=8,
        ffn_dim=20,
        num_layers=2,
    ).eval()
    WanFamily().prepare_model(model)
    return model


def wan_predict(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    video, reference = (torch.randn(1, 4, t, 4, 4, generator=generator) for t in (3, 1))
    text = torch.randn(1, 5, 10, generator=generator)
    with torch.no_grad():
        return WanFamily().predict(
            model, video, torch.tensor([300.0]), Conditioning(text, (reference,)), PositionsConfig()
        )


def test_released_targets_hit_what_the_released_code_hits():
    """Suffixes: "proj" is also the patch convolution and the first layer of the feed-forward."""
    blocks = [
        f"transformer_blocks.{i}.{name}"
        for i in range(2)
        for name in (
            "norm1.linear",
            "norm2.linear",
            "attn1.to_q",
            "attn1.to_k",
            "attn1.to_v",
            "attn1.to_out.0",
            "ff.net.0.proj",
            "ff.net.2",
        )
    ]
    assert add_lora(make_prepared_model(), SMALL, "cogvideox") == sorted(
        [*blocks, "patch_embed.proj", "patch_embed.text_proj"]
    )


def test_only_lora_is_trained_and_untrained_lora_changes_nothing():
    given, model = inputs(8, 12), make_prepared_model()
    before = predict(model, given)
    add_lora(model, SMALL, "cogvideox")
    trainable = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trainable and all(".lora_" in name for name in trainable)
    assert torch.equal(predict(model, given), before)


def test_lora_is_drawn_from_the_seed_and_does_not_use_the_global_generator():
    torch.manual_seed(1)
    states = []
    for seed in (0, 0, 1):
        model = make_prepared_model()
        before = torch.get_rng_state()
        add_lora(model, SMALL, "cogvideox", seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(get_lora_state(model)["patch_embed.proj.lora_A.weight"])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_a_target_without_a_match_is_one_line():
    with pytest.raises(RepriseError, match="to_w"):
        add_lora(make_prepared_model(), SMALL.model_copy(update={"targets": ("to_q", "to_w")}), "cogvideox")


def norms_of(model: nn.Module) -> dict[str, tuple[Tensor, ...]]:
    seen: dict[str, tuple[Tensor, ...]] = {}
    for i, block in enumerate(model.transformer_blocks):
        for name in ("norm1", "norm2"):

            def hook(module, args, output, key=f"{i}.{name}"):
                seen[key] = tuple(part.detach() for part in output)

            getattr(block, name).register_forward_hook(hook)
    return seen


def test_reference_only_leaves_the_video_and_the_text_untouched():
    """With LoRA only on the adaptive norms, each norm changes only reference tokens."""
    given = inputs(8, 12)
    config = SMALL.model_copy(update={"targets": ("norm1.linear", "norm2.linear"), "scope": "reference_only"})
    plain, ours = make_prepared_model(), add_trained_lora(make_prepared_model(), config)
    count = 24
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    tokens, words, time = draw(2, count + 72, 32), draw(2, 6, 32), draw(2, 8)
    predict(ours, given)  # sets how many tokens are references
    for one, other in zip(plain.transformer_blocks, ours.transformer_blocks, strict=True):
        for name in ("norm1", "norm2"):
            stock, adapted = (
                getattr(one, name)(tokens, words, time),
                getattr(other, name)(tokens, words, time),
            )
            assert torch.equal(adapted[0][:, count:], stock[0][:, count:])  # video
            assert torch.equal(adapted[1], stock[1]) and torch.equal(adapted[3], stock[3])  # text, its gate
            assert torch.equal(adapted[2][:, count:], stock[2].expand(-1, 72, -1))  # the video's gate
            assert (adapted[0][:, :count] - stock[0][:, :count]).abs().amin(dim=(0, 1)).max() > 1e-3
            assert not torch.allclose(adapted[2][:, :count], stock[2])
    # In a whole pass the first block sees the same inputs: before attention its video tokens are equal.
    seen = [norms_of(plain), norms_of(ours)]
    out = [predict(plain, given), predict(ours, given)]
    assert torch.equal(seen[0]["0.norm1"][0][:, count:], seen[1]["0.norm1"][0][:, count:])
    assert not torch.allclose(seen[0]["0.norm1"][0][:, :count], seen[1]["0.norm1"][0][:, :count])
    assert not torch.allclose(*out)  # through attention, which is what references are for


def test_reference_only_without_references_is_the_frozen_model():
    given = inputs(8, 12)
    config = SMALL.model_copy(update={"targets": ("norm1.linear", "norm2.linear"), "scope": "reference_only"})
    condition = Conditioning(given["text"])
    with torch.no_grad():
        outs = [
            FAMILY.predict(model, given["noisy"], given["timestep"], condition, POSITIONS)
            for model in (make_prepared_model(), add_trained_lora(make_prepared_model(), config))
        ]
    assert torch.equal(*outs)


def test_reference_only_follows_the_tokens_that_are_left():
    given, model = (
        inputs(8, 12),
        add_trained_lora(make_prepared_model(), SMALL.model_copy(update={"scope": "reference_only"})),
    )
    predict(model, given, keep=torch.tensor([0, 5, 7]))
    assert model.call.references.count == 3


def test_reference_only_trains_its_norms():
    given, model = inputs(8, 12), make_prepared_model()
    add_lora(model, SMALL.model_copy(update={"scope": "reference_only"}), "cogvideox")
    condition = Conditioning(given["text"], (given["reference"],))
    FAMILY.predict(model, given["noisy"], given["timestep"], condition, POSITIONS).square().mean().backward()
    gradient = dict(model.named_parameters())["transformer_blocks.0.norm1.linear.lora_B.default.weight"].grad
    assert gradient.abs().sum() > 0
    # Chunks 4 to 6 of a modulation are the text's, and never adapted.
    assert gradient[: 3 * 32].abs().sum() > 0 and gradient[3 * 32 :].abs().sum() == 0


def test_reference_only_is_not_merged_and_not_exported_to_comfyui(tmp_path):
    model = add_trained_lora(make_prepared_model(), SMALL.model_copy(update={"scope": "reference_only"}))
    with pytest.raises(RepriseError, match="cannot be merged"):
        merge_lora(model)
    with pytest.raises(RepriseError, match="ComfyUI"):
        save_lora(model, tmp_path / "a.safetensors", "cogvideox", "comfyui")


def test_reference_only_is_recorded_in_its_file(tmp_path):
    given = inputs(8, 12)
    model = add_trained_lora(make_prepared_model(), SMALL.model_copy(update={"scope": "reference_only"}))
    path = save_lora(model, tmp_path, "cogvideox")
    assert "transformer.transformer_blocks.0.norm1.reference.lora_A.weight" in load_file(path)
    again = make_prepared_model()
    load_lora(again, path, SMALL, "cogvideox")
    assert torch.equal(predict(again, given), predict(model, given))


@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
def test_a_file_that_was_saved_loads_with_the_alpha_that_it_stores(tmp_path, layout):
    given, model = inputs(8, 12), add_trained_lora(make_prepared_model())
    path = save_lora(model, tmp_path / "a.safetensors", "cogvideox", layout)
    again = make_prepared_model()
    load_lora(again, path, SMALL.model_copy(update={"alpha": 77.0}), "cogvideox")
    assert torch.equal(predict(again, given), predict(model, given))


def test_diffusers_loads_what_we_save_for_cogvideox(tmp_path):
    given, model = inputs(8, 12), add_trained_lora(make_prepared_model())
    path = save_lora(model, tmp_path, "cogvideox")
    stock = tiny_cogvideox()
    state, metadata = CogVideoXLoraLoaderMixin.lora_state_dict(str(path), return_lora_metadata=True)
    CogVideoXLoraLoaderMixin.load_lora_into_transformer(state, stock, metadata=metadata)
    FAMILY.prepare_model(stock)
    torch.testing.assert_close(predict(stock, given), predict(model, given))


@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
def test_diffusers_loads_what_we_save_for_wan(tmp_path, layout):
    model = add_trained_lora(tiny_wan(), family="wan")
    path = save_lora(model, tmp_path / "a.safetensors", "wan", layout)
    stock = tiny_wan()
    state, metadata = WanLoraLoaderMixin.lora_state_dict(str(path), return_lora_metadata=True)
    WanLoraLoaderMixin.load_lora_into_transformer(state, stock, metadata=metadata)
    torch.testing.assert_close(wan_predict(stock), wan_predict(model), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(wan_predict(tiny_wan()), wan_predict(model))


def test_comfyui_names_of_cogvideox(tmp_path):
    keys = set(
        load_file(
            save_lora(
                add_trained_lora(make_prepared_model()), tmp_path / "a.safetensors", "cogvideox", "comfyui"
            )
        )
    )
    names = {key.removesuffix(".alpha") for key in keys if key.endswith(".alpha")}
    assert {name.removeprefix("diffusion_model.") for name in names if ".1." not in name} == {
        "patch_embed.proj",
        "patch_embed.text_proj",
        *(f"blocks.0.{name}" for name in ("q", "k", "v", "attn_out", "ff_proj", "ff_out")),
        "blocks.0.norm1.linear",
        "blocks.0.norm2.linear",
    }


def test_merging_computes_the_same_and_is_undone():
    given, model = inputs(8, 12), add_trained_lora(make_prepared_model())
    before = predict(model, given)
    weights = {name: one.clone() for name, one in model.state_dict().items()}
    merge_lora(model)
    torch.testing.assert_close(predict(model, given), before, atol=1e-4, rtol=1e-4)
    unmerge_lora(model)
    for name, one in model.state_dict().items():
        torch.testing.assert_close(one, weights[name], atol=1e-6, rtol=1e-6)
    plain = remove_lora(model)
    assert set(plain.state_dict()) == set(tiny_cogvideox().state_dict())
    torch.testing.assert_close(predict(plain, given), before, atol=1e-4, rtol=1e-4)


def rewrite_file(path, change) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("transformer.patch_embed.proj.lora_A.weight"), "only one of lora_A and lora_B"),
        (lambda s: [s.pop(k) for k in list(s) if "text_proj" in k], "no LoRA for patch_embed.text_proj"),
        (
            lambda s: s.update(
                {k.replace("text_proj", "other"): s.pop(k) for k in list(s) if "text_proj" in k}
            ),
            "patch_embed.other not in the model",
        ),
        (
            lambda s: s.update(
                {
                    "transformer.proj_out.lora_A.weight": torch.zeros(2, 32),
                    "transformer.proj_out.lora_B.weight": torch.zeros(16, 2),
                }
            ),
            "LoRA for proj_out, which lora.targets does not name",
        ),
        (
            lambda s: s.update({"transformer.patch_embed.text_proj.lora_A.weight": torch.zeros(3, 12)}),
            "lora_A of rank 3 and a lora_B of rank 2",
        ),
        (
            lambda s: s.update(
                {
                    "transformer.patch_embed.text_proj.lora_A.weight": torch.zeros(3, 12),
                    "transformer.patch_embed.text_proj.lora_B.weight": torch.zeros(32, 3),
                }
            ),
            "ranks differ",
        ),
        (
            lambda s: s.update({"transformer.patch_embed.text_proj.lora_A.weight": torch.zeros(2, 13)}),
            "another shape",
        ),
        (lambda s: s.update({"transformer.patch_embed.proj.weight": torch.zeros(1)}), "no LoRA key"),
        (lambda s: s.clear(), "holds no LoRA"),
    ],
)
def test_files_that_do_not_fit_are_one_clear_line(tmp_path, change, words):
    path = save_lora(add_trained_lora(make_prepared_model()), tmp_path / "a.safetensors", "cogvideox")
    rewrite_file(path, change)
    with pytest.raises(RepriseError, match=words) as error:
        load_lora(make_prepared_model(), path, SMALL, "cogvideox")
    assert "\n" not in str(error.value)


def test_a_rank_other_than_the_configs_is_one_clear_line(tmp_path):
    path = save_lora(add_trained_lora(make_prepared_model()), tmp_path / "a.safetensors", "cogvideox")
    with pytest.raises(RepriseError, match=r"rank 2, but lora\.rank is 128"):
        load_lora(make_prepared_model(), path, LoraConfig(), "cogvideox")


@pytest.mark.parametrize("make", ["missing", "garbage", "empty_folder"])
def test_no_file_is_one_clear_line(tmp_path, make):
    path = tmp_path / "a.safetensors"
    if make == "garbage":
        path.write_bytes(b"not a tensor in sight")
    with pytest.raises(RepriseError) as error:
        load_lora(make_prepared_model(), tmp_path if make == "empty_folder" else path, SMALL, "cogvideox")
    assert "\n" not in str(error.value)


def test_lora_on_lora_is_refused():
    model = add_trained_lora(make_prepared_model())
    with pytest.raises(RepriseError, match="already"):
        add_lora(model, SMALL, "cogvideox")


def test_dropout_is_off_in_a_model_that_evaluates():
    given = inputs(8, 12)
    model = add_trained_lora(make_prepared_model(), SMALL.model_copy(update={"dropout": 0.5}))
    assert torch.equal(predict(model, given), predict(model, given))
    model.train()
    assert not torch.equal(predict(model, given), predict(model, given))
