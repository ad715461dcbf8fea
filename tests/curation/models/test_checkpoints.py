"""Where a checkpoint is, whether it is whole, and what exactly it is; files in their real formats."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curation.model_spec import ModelSpec
from curation.models import catalogue, checkpoints
from curation.models.checkpoints import (
    compute_fingerprint,
    find_weight_file,
    locate_checkpoint,
    resolve_checkpoint,
    verify_checkpoint,
)
from reprise.errors import RepriseError

torch = pytest.importorskip("torch", reason="needs torch")
safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors")

HUB = "Qwen/Qwen3-VL-8B-Instruct"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty models folder, and an empty cache of the hub."""
    monkeypatch.setenv("REPRISE_MODELS", str(tmp_path / "models"))
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs huggingface_hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield tmp_path / "models"


def spec(checkpoint: str | Path | None, revision: str | None = None) -> ModelSpec:
    return ModelSpec(
        backend="clip-hf", checkpoint=None if checkpoint is None else str(checkpoint), revision=revision
    )


def tensors(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.save_file(
        {"weight": np.random.default_rng(seed).normal(size=(32, 32)).astype(np.float32)}, str(path)
    )
    return path


def write_pulled_checkpoint(
    root: Path, source: str, revision: str, requested: str | None = None, seed: int = 0
) -> Path:
    """A folder as a finished pull leaves it."""
    folder = root / f"{source.replace('/', '--')}@{revision}"
    tensors(folder / "model.safetensors", seed)
    (folder / "config.json").write_text("{}")
    checkpoints.write_checkpoint_manifest(folder, source, revision, requested)
    return folder


def line(error: pytest.ExceptionInfo[RepriseError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# ---- where it is ------------------------------------------------------------------------------------------


def test_a_local_file_is_known_by_its_sum(tmp_path: Path) -> None:
    file = tensors(tmp_path / "a.safetensors")
    found = resolve_checkpoint(spec(file))
    assert (found.path, found.revision) == (file, found.sha256[:12])
    assert resolve_checkpoint(spec(f"local-dir:{file}")).sha256 == found.sha256


def test_a_hub_id_is_found_where_it_was_pulled(folder: Path) -> None:
    place = write_pulled_checkpoint(folder, HUB, "c" * 40, requested="main")
    for revision in (None, "main", "c" * 40, "c" * 8):
        found = resolve_checkpoint(spec(HUB, revision))
        assert (found.path, found.revision) == (place, "c" * 40)
    assert resolve_checkpoint(spec("hf-hub:" + HUB)).path == place


def test_two_revisions_need_a_choice(folder: Path) -> None:
    write_pulled_checkpoint(folder, HUB, "c" * 40)
    second = write_pulled_checkpoint(folder, HUB, "d" * 40)
    assert resolve_checkpoint(spec(HUB, "d" * 40)).path == second
    with pytest.raises(RepriseError, match=r"several revisions; set revision to one of: c+, d+") as error:
        resolve_checkpoint(spec(HUB))
    line(error)


def test_a_hub_id_is_found_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    store = tmp_path / "hub" / "models--someone--thing"
    tensors(store / "snapshots" / ("e" * 40) / "model.safetensors")
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text("e" * 40)
    found = resolve_checkpoint(spec("someone/thing"))
    assert found.revision == "e" * 40 and found.path.name == "e" * 40


def test_the_error_for_a_missing_file_names_what_to_fetch_how_and_where(folder: Path) -> None:
    with pytest.raises(RepriseError) as error:
        resolve_checkpoint(spec(HUB))
    message = line(error)
    assert HUB in message and "(17.5 GB)" in message and "`reprise models pull captioner`" in message
    assert str(folder) in message
    with pytest.raises(RepriseError) as error:
        resolve_checkpoint(spec("someone/thing", "v2"))
    assert "`reprise models pull someone/thing@v2`" in line(error)
    with pytest.raises(RepriseError, match="pull detector --size small"):
        resolve_checkpoint(spec("IDEA-Research/grounding-dino-tiny"))
    with pytest.raises(RepriseError, match="pull segmenter`"):
        resolve_checkpoint(spec("https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth"))
    with pytest.raises(RepriseError, match="no checkpoint at /nowhere"):
        resolve_checkpoint(spec("/nowhere/at/all"))
    with pytest.raises(RepriseError, match="needs a checkpoint"):
        resolve_checkpoint(spec(None))


def test_an_interrupted_pull_is_no_checkpoint(folder: Path) -> None:
    tensors(folder / f"{HUB.replace('/', '--')}@main.part" / "model.safetensors")
    with pytest.raises(RepriseError, match="no checkpoint"):
        locate_checkpoint(HUB, None)


# ---- is it whole ------------------------------------------------------------------------------------------


def truncate_file(file: Path, share: float = 0.6) -> Path:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    return file


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.5, 0.999])
def test_a_cut_off_safetensors_file_is_one_line(tmp_path: Path, share: float) -> None:
    file = truncate_file(tensors(tmp_path / "a.safetensors"), share)
    with pytest.raises(RepriseError, match="damaged or incomplete") as error:
        resolve_checkpoint(spec(file))
    line(error)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_off_torch_file_is_one_line(tmp_path: Path, share: float) -> None:
    file = tmp_path / "a.pth"
    torch.save({"weight": torch.zeros(64, 64)}, file)
    verify_checkpoint(file)
    with pytest.raises(RepriseError, match="cut off"):
        verify_checkpoint(truncate_file(file, share))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_off_onnx_file_is_one_line(tmp_path: Path, share: float) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.zeros((64, 64), np.float32), "w")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1, 64])],
        [value("y", TensorProto.FLOAT, [1, 64])],
        [weight],
    )
    file = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph), str(file))
    verify_checkpoint(file)
    with pytest.raises(RepriseError, match="cut off"):
        verify_checkpoint(truncate_file(file, share))


def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    for name, data, message in (
        ("page.pth", b"<!DOCTYPE html><html>404</html>", "web page"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
        ("words.pt", b"hello there, this is text", "no PyTorch file"),
        ("noise.safetensors", (4).to_bytes(8, "little") + b"{}x]", "header is unreadable"),
        ("empty.bin", b"", "empty"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RepriseError, match=message) as error:
            verify_checkpoint(tmp_path / name)
        line(error)


def test_a_folder_lacks_what_its_manifest_or_index_names(folder: Path, tmp_path: Path) -> None:
    place = write_pulled_checkpoint(folder, HUB, "c" * 40)
    (place / "config.json").unlink()
    with pytest.raises(RepriseError, match=r"config.json is damaged or incomplete .missing"):
        resolve_checkpoint(spec(HUB))
    shards = tmp_path / "sharded"
    tensors(shards / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(RepriseError, match=r"model-00002-of-00002.safetensors is damaged .* .missing"):
        verify_checkpoint(shards)
    (tmp_path / "bare").mkdir()
    with pytest.raises(RepriseError, match="holds no weights"):
        verify_checkpoint(tmp_path / "bare")


def test_the_one_weight_file_of_a_folder(tmp_path: Path) -> None:
    file = tensors(tmp_path / "a.safetensors")
    assert find_weight_file(tmp_path) == find_weight_file(file) == file
    tensors(tmp_path / "b.safetensors")
    with pytest.raises(RepriseError, match="one weight file"):
        find_weight_file(tmp_path)


# ---- what exactly it is -----------------------------------------------------------------------------------


def test_weights_and_tokenizer_name_a_folder_and_its_readme_does_not(tmp_path: Path) -> None:
    place = tmp_path / "model"
    tensors(place / "model.safetensors")
    (place / "tokenizer.json").write_text("{}")
    first = compute_fingerprint(place)
    (place / "README.md").write_text("words")
    assert compute_fingerprint(place) == first
    (place / "tokenizer.json").write_text('{"a": 1}')
    second = compute_fingerprint(place)
    tensors(place / "model.safetensors", seed=1)
    assert len({first, second, compute_fingerprint(place)}) == 3


def test_a_sum_is_kept_beside_the_file_until_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tensors(tmp_path / "model" / "a.safetensors")
    first = compute_fingerprint(file)
    assert first == checkpoints.hash_file(file)
    read: list[Path] = []
    real = checkpoints.hash_file
    monkeypatch.setattr(checkpoints, "hash_file", lambda path: read.append(path) or real(path))
    assert compute_fingerprint(file) == first and read == []
    tensors(file, seed=1)
    os.utime(file, ns=(time.time_ns(), time.time_ns() + 1))
    assert compute_fingerprint(file) != first and read == [file]


def test_notes_that_cannot_be_kept_or_read_only_cost_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tensors(tmp_path / "model" / "a.safetensors")
    (file.parent / ".reprise-sha256.json").write_text("not json")
    first = compute_fingerprint(file)

    def full(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (file.parent / ".reprise-sha256.json").unlink()
    monkeypatch.setattr(checkpoints, "_replace_file", full)
    assert compute_fingerprint(file) == first


# ---- the catalogue ----------------------------------------------------------------------------------------


def test_every_entry_can_be_addressed_and_every_role_has_a_default() -> None:
    entries = catalogue.list_published("pretrained")
    for entry in entries:
        assert checkpoints.is_url(entry.source) or checkpoints.is_hub_id(entry.source)
        assert entry.sha256 is None or len(entry.sha256) == 64
        assert entry.revision is None or len(entry.revision) == 40
        found = catalogue.find_published(entry.source)  # the first of several roles that share a checkpoint
        assert found is not None and (found.source, found.revision) == (entry.source, entry.revision)
        assert catalogue.build_spec(entry).checkpoint == entry.source
    for role in {entry.role for entry in entries}:
        assert any(entry.is_default for entry in catalogue.list_published("pretrained", role))
    assert len({(entry.role, entry.name) for entry in entries}) == len(entries)


def test_published_face_packs_are_marked_as_non_commercial() -> None:
    packs = catalogue.list_published("pretrained", "faces")
    assert packs
    assert all(entry.commercial is False and "non-commercial" in str(entry.licence) for entry in packs)
