"""The plain stage's model: a lossless VAE and a pipeline folder of stock parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.config import ModelConfig
from training.models.build import FAMILIES
from training.models.components import fetch_part, load_text_encoder, load_transformer, load_vae
from training.playground.model import SHAPES, TEXT_LENGTH, write_model


@pytest.fixture(scope="module", params=sorted(SHAPES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), family=family)


def test_what_is_encoded_is_decoded_exactly(folder: Path) -> None:
    vae = load_vae(str(folder))
    video = torch.rand(2, 3, 3, 12, 12) * 2 - 1
    posterior = vae.encode(video).latent_dist
    assert posterior.mode().shape == (2, 12, 3, 6, 6)
    assert torch.equal(vae.decode(posterior.mode()).sample, video)
    assert posterior.std.max() < 1e-6


def test_the_transformer_is_the_stock_class_and_small(folder: Path, family: str) -> None:
    name = {"wan": "WanTransformer3DModel", "cogvideox": "CogVideoXTransformer3DModel"}[family]
    assert fetch_part(str(folder), None, "transformer")[1]["_class_name"] == name
    weights = load_transformer(ModelConfig(path=str(folder)), name).parameters()
    assert 0.6e6 < sum(weight.numel() for weight in weights) < 0.8e6
    assert fetch_part(str(folder), None, "vae")[1]["_class_name"] == "PixelUnshuffleVAE"


def test_captions_of_the_stage_fit_and_differ(folder: Path, family: str) -> None:
    encoder, tokenizer = load_text_encoder(str(folder))
    captions = [f"A thing moves {way}." for way in ("to the left", "to the right", "up", "down")]
    assert not any(tokenizer.unk_token_id in ids for ids in tokenizer(captions).input_ids)
    assert max(map(len, tokenizer(captions).input_ids)) <= TEXT_LENGTH
    embed_captions = FAMILIES[family]().embed_captions
    means = torch.stack([text.mean(0) for text in embed_captions(captions, encoder, tokenizer, TEXT_LENGTH)])
    assert torch.pdist(means).min() > 0.5


def test_the_same_seed_writes_the_same_model(folder: Path, family: str, tmp_path: Path) -> None:
    again = write_model(tmp_path, family=family)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() == (again / weights).read_bytes()
