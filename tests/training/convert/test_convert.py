"""Kaleido's weights in three layouts: every way round gives back the same bits."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reprise.errors import RepriseError
from tests.training.goldens import names, read
from training.convert import files
from training.convert.files import convert_checkpoint, read_checkpoint
from training.convert.kaleido import convert_state_dict, detect_layout, list_tensors, plan_conversion

LAYOUTS = ("sat", "wan", "diffusers")


def tiny():
    """A diffusers state dict of a small random Wan transformer, as bfloat16."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=3, text_dim=8, freq_dim=16
    )
    return {key: value.bfloat16() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def own():
    return tiny()


@pytest.fixture(scope="module")
def folder(own, tmp_path_factory):
    """The same weights as a folder in each layout."""
    root = tmp_path_factory.mktemp("layouts")
    save_file(own, root / "own.safetensors")
    for layout in LAYOUTS:
        convert_checkpoint(root / "own.safetensors", root / layout, layout, heads=2)
    return root


def assert_equal_tensors(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("to", LAYOUTS)
def test_every_round_trip_is_exact(folder, tmp_path, source, to):
    report = convert_checkpoint(folder / source, tmp_path / "there", to, heads=2)
    assert (report.source, report.to, report.blocks, report.unknown) == (source, to, 3, ())
    convert_checkpoint(tmp_path / "there", tmp_path / "back", source, heads=2)
    assert_equal_tensors(read_checkpoint(tmp_path / "back").tensors, read_checkpoint(folder / source).tensors)
    assert_equal_tensors(read_checkpoint(tmp_path / "there").tensors, read_checkpoint(folder / to).tensors)


def test_diffusers_itself_loads_what_is_written(folder, own):
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel.from_pretrained(folder / "diffusers", dtype=torch.bfloat16)
    assert model.config.num_attention_heads == 2
    for key, value in model.state_dict().items():
        assert torch.equal(value.bfloat16(), own[key]), key


def test_sat_stacks_q_k_v_in_this_order_under_module(folder, own):
    assert (folder / "sat" / "latest").read_text() == "1"
    content = torch.load(folder / "sat" / "1" / "mp_rank_00_model_states.pt", weights_only=True)
    stacked = content["module"]["model.diffusion_model.transformer.layers.2.attention.query_key_value.weight"]
    parts = [own[f"blocks.2.attn1.to_{part}.weight"] for part in "qkv"]
    assert torch.equal(stacked, torch.cat(parts))


def test_large_output_is_cut_into_shards_with_an_index(folder, tmp_path, monkeypatch, own):
    from diffusers import WanTransformer3DModel

    monkeypatch.setattr(files, "SHARD_BYTES", 20_000)
    convert_checkpoint(folder / "sat", tmp_path / "out", "diffusers", heads=2)
    index = json.loads((tmp_path / "out" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert_equal_tensors(read_checkpoint(tmp_path / "out").tensors, own)
    WanTransformer3DModel.from_pretrained(tmp_path / "out")


def test_a_file_written_by_training_is_read_past_its_other_entries(folder, tmp_path):
    module = OrderedDict(read_checkpoint(folder / "sat").tensors)
    module["conditioner.embedders.0.weight"] = torch.ones(2)
    module["model.diffusion_model.mixins.pos_embed.freqs_sin"] = torch.ones(2)
    content = {
        "module": module,
        "iteration": 7,
        "np_rng_state": ("MT19937", np.arange(624, dtype=np.uint32), 7, 0, 0.0),
        "torch_rng_state": torch.get_rng_state(),
        "scheduler_state": {"lr": 1e-5},
    }
    (tmp_path / "in" / "7").mkdir(parents=True)
    (tmp_path / "in" / "latest").write_text("7\n")
    torch.save(content, tmp_path / "in" / "7" / "fsdp2_rank_0000_checkpoint.pt")
    report = convert_checkpoint(tmp_path / "in", tmp_path / "out", heads=2)
    assert report.to == "diffusers"
    assert report.count_unknown_kinds() == [("conditioner.embedders", 1), ("model.diffusion_model", 1)]
    assert_equal_tensors(
        read_checkpoint(tmp_path / "out").tensors, read_checkpoint(folder / "diffusers").tensors
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no checkpoint at"),
        (lambda path: path.mkdir(), "holds no weights"),
        (lambda path: save_file({"text_model.weight": torch.ones(1)}, path), "not a Kaleido or Wan"),
        (
            lambda path: save_file({k: v for k, v in tiny().items() if "blocks.1.attn2" not in k}, path),
            "lacks 10 of",
        ),
        (lambda path: save_file(tiny() | {"proj_out.bias": torch.ones(3)}, path), "proj_out.bias is [3]"),
        (lambda path: path.write_bytes(b"not a checkpoint"), "no whole"),
        (lambda path: torch.save({"module": {1: print}}, path.with_suffix(".pt")), "for safety"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path, make, message):
    path = tmp_path / "in.safetensors"
    make(path)
    path = path if path.exists() or "no checkpoint" in message else path.with_suffix(".pt")
    with pytest.raises(RepriseError, match=message.replace("[", r"\[")) as caught:
        convert_checkpoint(path, tmp_path / "out", heads=2)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_a_width_that_is_not_wans_needs_the_number_of_heads(folder, tmp_path):
    with pytest.raises(RepriseError, match="--heads"):
        convert_checkpoint(folder / "sat", tmp_path / "out")


def test_a_model_cut_over_ranks_is_refused(folder, tmp_path):
    (tmp_path / "in").mkdir()
    for rank in ("00", "01"):
        (tmp_path / "in" / f"mp_rank_{rank}_model_states.pt").write_bytes(b"")
    with pytest.raises(RepriseError, match="cut into 2 parts"):
        convert_checkpoint(tmp_path / "in", tmp_path / "out")


def test_an_existing_target_is_not_overwritten(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(RepriseError, match="not empty"):
        convert_checkpoint(folder / "sat", tmp_path / "out", heads=2)


def test_names_are_unique_in_every_layout():
    wanted = list_tensors(2)
    for layout in LAYOUTS:
        keys = [name for entry in wanted for name in entry.get_names(layout)]
        assert len(keys) == len(set(keys))
        assert detect_layout(keys) == layout


@pytest.mark.parametrize("name", names("kaleido_weights_diffusers.safetensors"))
def test_released_layouts_are_the_recorded_ones(name):
    recorded = {layout: read(f"kaleido_weights_{word}.safetensors")[0] for layout, word in
                (("sat", "sat"), ("wan", "wan_original"), ("diffusers", "diffusers"))}  # fmt: skip
    for source, tensors in recorded.items():
        assert plan_conversion(tensors)[2] == []
        for to, expected in recorded.items():
            assert_equal_tensors(convert_state_dict(tensors, to), expected), (source, to)


def test_safetensors_of_one_file_has_the_name_that_diffusers_looks_for(folder, own):
    assert_equal_tensors(load_file(folder / "diffusers" / "diffusion_pytorch_model.safetensors"), own)
