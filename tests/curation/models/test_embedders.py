"""DINOv2 and CLIP as embedders of pictures, from tiny checkpoints in their real formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from curation.model_spec import ModelSpec
from reprise.errors import RepriseError

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")

from curation.models.pretrained.embedders import ClipEmbedder, DinoEmbedder  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def images_processor() -> Any:
    """As DINOv2 publishes it, in small: the shorter side to 64, of that the middle 56."""
    return transformers.BitImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip


def save_dino(folder: Path, registers: bool = False) -> Any:
    settings = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
        "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(0)
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**settings, num_register_tokens=2)
        model = transformers.Dinov2WithRegistersModel(config)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**settings))
    with torch.no_grad():
        model.embeddings.patch_embeddings.projection.weight.mul_(10)
    model.eval().save_pretrained(folder)
    images_processor().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino") / "dinov2"
    save_dino(folder)
    return folder


def spec(path: Path, batch_size: int = 2, **options: Any) -> ModelSpec:
    return ModelSpec(backend="dinov2", checkpoint=str(path), batch_size=batch_size, options=options)


def pictures(*sizes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(0)
    return [
        np.clip(draw.integers(0, 255, 3) + draw.integers(-60, 60, (*size, 3)), 0, 255).astype(np.uint8)
        for size in sizes
    ]


def test_vectors_are_units_and_do_not_depend_on_the_batch(dino: Path) -> None:
    images = pictures((56, 56), (100, 30), (20, 90), (64, 64), (57, 55))
    vectors = [DinoEmbedder(spec(dino, batch_size)).embed(images) for batch_size in (1, 4)]
    assert vectors[0].shape == (5, 32) and vectors[0].dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors[0], axis=1), 1, atol=1e-6)
    assert np.allclose(vectors[0], vectors[1], atol=1e-5)
    assert len(DinoEmbedder(spec(dino)).embed([])) == 0


def test_the_vector_is_the_class_token_after_the_last_norm(dino: Path) -> None:
    model = transformers.Dinov2Model.from_pretrained(dino).eval()
    image = pictures((56, 56))[0]
    inputs = images_processor()([image], return_tensors="pt")
    with torch.no_grad():
        wanted = model(**inputs).pooler_output[0].numpy()
    found = DinoEmbedder(spec(dino, fit="crop")).embed([image])[0]
    assert np.allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_a_subject_is_seen_whole_and_as_large_as_can_be(dino: Path) -> None:
    """The square is as much larger than the subject as the processor cuts away: 64 / 56."""
    tall = np.full((112, 40, 3), 120, np.uint8)
    dressed = tall.copy()
    dressed[:6], dressed[-6:] = (255, 0, 0), (0, 0, 255)
    seen = DinoEmbedder(spec(dino)).embed([tall, dressed])
    cut = DinoEmbedder(spec(dino, fit="crop")).embed([tall, dressed])
    assert np.allclose(cut[0], cut[1], atol=1e-5)
    assert seen[0] @ seen[1] < 0.9999
    # What the model gets of a 56 px square: its corners are the corners of the picture.
    embedder = DinoEmbedder(spec(dino))
    assert embedder._share == pytest.approx(56 / 64)


def test_registers_are_not_taken_for_the_class_token(tmp_path: Path) -> None:
    save_dino(tmp_path / "registers", registers=True)
    model = transformers.Dinov2WithRegistersModel.from_pretrained(tmp_path / "registers").eval()
    image = pictures((56, 56))[0]
    with torch.no_grad():
        wanted = model(**images_processor()([image], return_tensors="pt")).pooler_output[0].numpy()
    found = DinoEmbedder(spec(tmp_path / "registers", fit="crop")).embed([image])[0]
    assert np.allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_clip_embeds_by_its_picture_side(tmp_path: Path) -> None:
    pytest.importorskip("open_clip", reason="shares the tiny CLIP of the scorers' tests")
    from tests.curation.models.test_scorers import save_clip

    save_clip(tmp_path / "clip")
    embedder = ClipEmbedder(spec(tmp_path / "clip"))
    vectors = embedder.embed(pictures((40, 40), (30, 90)))
    assert vectors.shape == (2, 16) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert embedder.name == "clip-embedder" and embedder.revision


def test_what_is_no_dino_is_one_line(dino: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((dino / name).read_bytes())
    vit = tmp_path / "vit"
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=56,
        patch_size=14,
    )
    transformers.ViTModel(config).save_pretrained(vit)
    half = tmp_path / "half"
    save_dino(half)
    data = (half / "model.safetensors").read_bytes()
    (half / "model.safetensors").write_bytes(data[: len(data) // 2])
    for folder, message in (
        (bare, "the image processor of DINOv2"),
        (vit, "is a vit, not one of dinov2"),
        (half, "damaged or incomplete"),
    ):
        with pytest.raises(RepriseError, match=message) as error:
            DinoEmbedder(spec(folder))
        assert "\n" not in str(error.value)
    with pytest.raises(RepriseError, match="device cuda"):
        DinoEmbedder(ModelSpec(backend="dinov2", checkpoint=str(dino), device="cuda:77"))
