"""Parts of a model folder load unchanged; a missing part is an error of one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from reprise.errors import RepriseError
from tests.training.tiny_models import write_wan
from training.config import ModelConfig
from training.models.build import build_family
from training.models.components import (
    load_scheduler,
    load_text_encoder,
    load_transformer,
    load_vae,
    read_config,
)
from training.models.published import get_transformer_config

WAN = "WanTransformer3DModel"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def model(folder, **options):
    return ModelConfig(path=str(folder), **options)


def test_every_part_loads(folder):
    assert load_transformer(model(folder), WAN).config.num_layers == 2
    assert not load_vae(str(folder)).training
    encoder, tokenizer = load_text_encoder(str(folder), dtype=torch.bfloat16)
    assert next(encoder.parameters()).dtype == torch.bfloat16 and tokenizer("a dog").input_ids
    assert type(load_scheduler(str(folder))).__name__ == "FlowMatchEulerDiscreteScheduler"


def test_random_weights_are_the_seeds_and_need_no_files(folder, copy):
    (copy / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    once, again, other = (
        load_transformer(model(copy, init="random"), WAN, seed=seed).proj_out.weight for seed in (1, 1, 2)
    )
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert load_transformer(model(copy), WAN, device="meta").proj_out.weight.is_meta
    with pytest.raises(RepriseError, match="could not be loaded as"):
        load_transformer(model(copy), WAN)


def test_a_model_of_two_transformers_is_refused(copy):
    assert build_family(model(copy)).name == "wan"
    assert get_transformer_config(model(copy))["num_layers"] == 2
    shutil.copytree(copy / "transformer", copy / "transformer_2")
    for read in (build_family, get_transformer_config):
        with pytest.raises(RepriseError, match="has two transformers") as caught:
            read(model(copy))
        assert "\n" not in str(caught.value)


def test_another_model_is_named(folder):
    with pytest.raises(RepriseError, match="holds a WanTransformer3DModel, not a CogVideoX"):
        load_transformer(model(folder), "CogVideoXTransformer3DModel")


def test_half_a_checkpoint_is_not_loaded(copy):
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if "attn2" not in key}, file)
    with pytest.raises(RepriseError, match="lacks 20 tensors"):
        load_transformer(model(copy), WAN)


@pytest.mark.parametrize(
    ("spoil", "load", "message"),
    [
        (lambda f: shutil.rmtree(f / "vae"), load_vae, r"has no vae/config\.json"),
        (lambda f: (f / "vae" / "config.json").write_text("{"), load_vae, "is no JSON"),
        (lambda f: rename(f / "vae", "NoVAE"), load_vae, "names the VAE class 'NoVAE'"),
        (lambda f: shutil.rmtree(f / "tokenizer"), load_text_encoder, "has no tokenizer/"),
        (
            lambda f: shutil.rmtree(f / "scheduler"),
            load_scheduler,
            "has no scheduler/",
        ),
    ],
)
def test_what_is_wrong_is_one_clear_line(copy, spoil, load, message):
    spoil(copy)
    with pytest.raises(RepriseError, match=message) as caught:
        load(str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/nothing/here", "nothing"])
def test_a_path_that_does_not_exist_is_one_line(path):
    with pytest.raises(RepriseError, match="diffusers folder or a hub id"):
        read_config(path, None, "transformer")


def rename(part, name):
    file = part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": name}))
