"""Latents that do not fit the model are refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reprise.errors import RepriseError
from reprise.storage import Storage
from training.config import ModelConfig
from training.latents.check import check_latents
from training.latents.encoders import hash_model_parts
from training.latents.store import Latents, ModelInfo
from training.models.build import build_family
from training.models.wan import WanFamily
from training.playground.random_latents import write_latents


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    for part, config in {
        "transformer": {"_class_name": "WanTransformer3DModel", "in_channels": 16, "text_dim": 32},
        "vae": {"_class_name": "AutoencoderKLWan", "z_dim": 16},
    }.items():
        (tmp_path / "M" / part).mkdir(parents=True)
        (tmp_path / "M" / part / "config.json").write_text(json.dumps(config))
    return ModelConfig(path=str(tmp_path / "M"))


def get_message(folder: Storage, model: ModelConfig) -> str:
    with pytest.raises(RepriseError) as caught:
        check_latents(Latents(folder), build_family(model), model)
    return str(caught.value)


def made_with(vae: str, family: str = "wan") -> ModelInfo:
    return ModelInfo(path="M", family=family, vae=vae, text_encoder="")


def test_latents_of_the_model_are_taken(tmp_path: Path, model: ModelConfig) -> None:
    vae = hash_model_parts(model.path, None, "vae")
    for n, digest in enumerate((vae, "")):
        folder = write_latents(tmp_path / f"L{n}", 4, model=made_with(digest))
        check_latents(Latents(folder), build_family(model), model)


def test_what_does_not_fit_is_named(tmp_path: Path, model: ModelConfig) -> None:
    assert "made with another VAE (abcdef" in get_message(
        write_latents(tmp_path / "a", 4, model=made_with("abcdef" * 10)), model
    )
    assert "of a cogvideox model, not wan" in get_message(
        write_latents(tmp_path / "b", 4, family="cogvideox"), model
    )
    assert "channels of the latents" in get_message(write_latents(tmp_path / "c", 4, channels=4), model)
    assert "text width of the latents" in get_message(write_latents(tmp_path / "d", 4, text_width=8), model)
    assert "clip-00000" in get_message(write_latents(tmp_path / "e", 4, sizes=((3, 5, 6),)), model)
    folder = write_latents(tmp_path / "f", 4)
    with pytest.raises(RepriseError, match="hold 4 frames and 8 px each, the model's 4 and 16"):
        check_latents(Latents(folder), WanFamily(spatial_scale=16), model)


def test_captions_of_another_length_than_the_models_prompts_are_refused(
    tmp_path: Path, model: ModelConfig
) -> None:
    latents = write_latents(tmp_path / "L", 4, text_length=16)
    file = Path(model.path, "tokenizer", "tokenizer_config.json")
    file.parent.mkdir()
    file.write_text('{"model_max_length": 16}')
    check_latents(Latents(latents), build_family(model), model)
    for limit, length in ((8, 8), (10**30, 512)):
        file.write_text(json.dumps({"model_max_length": limit}))
        assert f"are padded to 16 tokens, the model's prompts to {length}" in get_message(latents, model)


def test_a_reference_larger_than_its_video_is_refused(tmp_path: Path, model: ModelConfig) -> None:
    folder = write_latents(tmp_path / "L", 4, sizes=((3, 4, 6),), reference_size=(4, 8))
    assert "reference of width 8, its video 6" in get_message(folder, model)
    check_latents(
        Latents(write_latents(tmp_path / "ok", 4, reference_size=(4, 4))), build_family(model), model
    )
