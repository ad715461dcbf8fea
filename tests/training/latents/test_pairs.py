"""Pairs of pictures of one subject: each source, its reasons to drop a pair, and identity steps."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from reprise.errors import RepriseError
from reprise.storage import Storage
from tests.training.tiny_models import write_cogvideox
from training.config import IdentityTask
from training.data.sampler import Sampler
from training.latents.config import EncodeConfig, PairsConfig
from training.latents.encode import encode_dataset, execute_here
from training.latents.sources.curated_pairs import iterate_pairs
from training.latents.sources.open_pairs import CuratedPairs, ListedPairs, Subjects200K, open_pairs
from training.latents.sources.subjects200k import find_refusal, split_panels
from training.latents.store import Latents, LatentsManifest
from training.tasks.build import build_tasks

GOOD = {"compositeStructure": 5, "objectConsistency": 5, "imageQuality": 5}


def settings(**changes: Any) -> EncodeConfig:
    buckets = {"area": 64 * 64, "fps": 8.0}
    return EncodeConfig.model_validate(
        {"buckets": buckets, "dtype": "fp32", "text_dtype": "fp32", "engine": {"part_rows": 2}, **changes}
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_cogvideox(tmp_path_factory.mktemp("cogvideox")))


def picture(colour: str, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    memory = io.BytesIO()
    Image.new(mode, size, colour).save(memory, "PNG")
    return memory.getvalue()


def composite(left: str, right: str, side: int = 64, border: int = 8) -> bytes:
    panel = side + 2 * border
    image = Image.new("RGB", (2 * panel, panel), "white")
    for n, colour in enumerate((left, right)):
        image.paste(Image.new("RGB", (side, side), colour), (n * panel + border, border))
    memory = io.BytesIO()
    image.save(memory, "PNG")
    return memory.getvalue()


def subjects200k_row(**changes: Any) -> dict[str, Any]:
    description = {
        "item": "red chair",
        "description_0": "a red chair in a room",
        "description_1": "a red chair in a street",
        "category": "Furniture",
        "description_valid": True,
    }
    row = {
        "image": {"bytes": composite("red", "blue"), "path": None},
        "collection": "collection_2",
        "quality_assessment": GOOD,
        "description": description,
    }
    return {**row, **changes}


def write_subjects200k(root: Path, rows: list[dict[str, Any]]) -> Path:
    (root / "data").mkdir(parents=True)
    scores = pa.struct([(name, pa.int64()) for name in GOOD])
    texts = ("item", "description_0", "description_1", "category")
    description = pa.struct([*((name, pa.string()) for name in texts), ("description_valid", pa.bool_())])
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("collection", pa.string()),
            ("quality_assessment", scores),
            ("description", description),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), root / "data" / "train-00000-of-00001.parquet")
    return root


def run(place: Path, model: str, out: Path, config: EncodeConfig) -> LatentsManifest:
    return encode_dataset(open_pairs(str(place), config), model, Storage.from_uri(out), config, execute_here)


def test_the_panels_of_a_side_by_side_image_come_without_their_borders():
    image = Image.open(io.BytesIO(composite("red", "blue", side=512)))
    assert image.size == (1056, 528)
    for panel, colour in zip(split_panels(image), ((255, 0, 0), (0, 0, 255)), strict=True):
        assert panel.size == (512, 512)
        assert (np.asarray(panel) == colour).all()
    with pytest.raises(ValueError, match="two panels"):
        split_panels(Image.new("RGB", (1056, 60)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"quality_assessment": {**GOOD, "objectConsistency": 3}}, "different subjects"),
        ({"quality_assessment": {**GOOD, "imageQuality": 4}}, "low quality"),
        ({"quality_assessment": None}, "not assessed"),
        (
            {"description": {**subjects200k_row()["description"], "description_valid": False}},
            "invalid description",
        ),
        ({"description": {**subjects200k_row()["description"], "description_1": None}}, "no caption"),
    ],
)
def test_rows_of_subjects200k_that_are_no_pair_have_a_reason(changes, reason):
    found, message = find_refusal(subjects200k_row(**changes), PairsConfig())
    assert found == reason and "\n" not in message
    if reason in ("different subjects", "low quality", "not assessed"):
        assert find_refusal(subjects200k_row(**changes), PairsConfig(quality=0))[0] is None


def test_subjects200k_is_encoded_both_ways_and_an_identity_task_reads_it(tmp_path: Path, model: str):
    rows = [
        subjects200k_row(),
        subjects200k_row(quality_assessment={**GOOD, "objectConsistency": 2}),
        subjects200k_row(image={"bytes": b"no picture", "path": None}),
    ]
    place = write_subjects200k(tmp_path / "S", rows)
    manifest = run(place, model, tmp_path / "L", settings())
    assert isinstance(open_pairs(str(place), settings()), Subjects200K)
    assert (manifest.rows_in, manifest.encoded) == (6, 2)
    assert manifest.reasons == {"different subjects": 2, "unreadable": 2}
    assert manifest.buckets == {"1x8x8": 2} and manifest.references == {"pair": 2}
    latents = Latents(str(tmp_path / "L"))
    captions = sorted(latents.records.get_column("caption"))
    assert captions == ["a red chair in a room", "a red chair in a street"]
    (task,) = build_tasks([IdentityTask(latents="L", batch=2, caption_dropout=0)])
    sampler = Sampler([task], [latents.records], seed=0)
    plan = sampler.plan_step(0)
    samples = [
        latents.read_sample(i, latents.records[r], sampler.draw_choice(plan, i, latents.records[r]))
        for i, r in zip(plan.indices, plan.rows, strict=True)
    ]
    assert {tuple(sample.video.shape) for sample in samples} == {(16, 1, 8, 8)}
    # One's target is the other's reference, but for the draw of the VAE's posterior.
    one, other = samples
    assert (one.video - other.references[0]).abs().mean() < (one.video - other.video).abs().mean()


def test_one_way_the_right_panel_is_the_target_and_the_text_precedes_captions(tmp_path: Path, model: str):
    place = write_subjects200k(tmp_path / "S", [subjects200k_row()])
    config = settings(pairs={"both_ways": False, "words": "<cls>"})
    assert run(place, model, tmp_path / "L", config).encoded == 1
    assert Latents(str(tmp_path / "L")).records.get_column("caption") == ["<cls> a red chair in a street"]


def write_list(root: Path, lines: list[dict[str, Any]], name: str = "pairs.jsonl") -> Path:
    root.mkdir(exist_ok=True)
    for file, data in {"a.png": picture("red"), "b.png": picture("blue")}.items():
        (root / file).write_bytes(data)
    (root / "cut.png").write_bytes(picture("#ff000080", mode="RGBA"))
    if name.endswith(".jsonl"):
        (root / name).write_text("\n".join(json.dumps(line) for line in lines))
    else:
        columns = list(lines[0])
        body = [",".join(str(line[column]) for column in columns) for line in lines]
        (root / name).write_text("\n".join([",".join(columns), *body]))
    return root / name


PAIR = {"reference": "a.png", "target": "b.png", "caption": "a red thing"}


def test_dropped_pairs_of_lists_have_a_reason(tmp_path: Path, model: str):
    lines = [
        PAIR,
        {**PAIR, "target": "cut.png", "same_subject": False},
        {**PAIR, "target": "gone.png"},
        {**PAIR, "reference": "b.png", "target": "a.png", "caption": ""},
    ]
    manifest = run(write_list(tmp_path / "P", lines), model, tmp_path / "L", settings())
    assert manifest.encoded == 1
    assert manifest.reasons == {"different subjects": 1, "missing file": 1, "no caption": 1}


def test_a_csv_is_a_list_too(tmp_path: Path):
    place = write_list(
        tmp_path / "P", [{**PAIR, "same_subject": "false"}, PAIR | {"same_subject": ""}], "pairs.csv"
    )
    assert [p.drop for p in open_pairs(str(place), settings()).plan_items()] == ["different subjects", None]


def test_a_reference_without_transparency_is_dropped_where_it_is_required(tmp_path: Path, model: str):
    lines = [PAIR, {**PAIR, "reference": "cut.png"}]
    config = settings(pairs={"alpha": "required"})
    manifest = run(write_list(tmp_path / "P", lines), model, tmp_path / "L", config)
    assert (manifest.encoded, manifest.reasons) == (1, {"no alpha": 1})


def test_a_folder_of_references_and_targets(tmp_path: Path):
    for folder in ("references", "targets"):
        (tmp_path / folder).mkdir()
    (tmp_path / "references" / "one.png").write_bytes(picture("red"))
    (tmp_path / "targets" / "one.jpg").write_bytes(picture("red"))
    (tmp_path / "targets" / "one.txt").write_text("a red thing\n")
    (tmp_path / "targets" / "two.jpg").write_bytes(picture("red"))
    source = open_pairs(str(tmp_path), settings(captions="optional"))
    assert isinstance(source, ListedPairs)
    planned = source.plan_items()
    assert [p.drop for p in planned] == [None, "missing file"]
    (item,) = source.load_items([planned[0].place])
    assert item.still and item.caption == "a red thing" and item.pictures[0].variant == "pair"


def curated_row(**changes: Any) -> dict[str, Any]:
    def reference(variant: str, colour: str, **more: Any) -> dict[str, Any]:
        return {
            "reference_id": f"c-{variant}",
            "variant": variant,
            "kept": True,
            "prompt": None,
            "image": {"bytes": picture(colour), "path": None},
            **more,
        }

    references = [
        reference("crop", "red"),
        reference("segment", "green"),
        reference("inpaint", "blue", prompt="a dog on a lawn"),
        reference("redux", "white", kept=False),
    ]
    subject = {
        "subject_id": "s",
        "category": "dog",
        "phrase": "brown dog",
        "verdict": {"kept": True},
        "references": references,
    }
    row = {
        "clip_id": "c",
        "video_id": "v",
        "caption": "a brown dog runs",
        "status": "kept",
        "config_hash": "h",
        "subjects": [subject],
    }
    return {**row, **changes}


def test_references_of_one_subject_are_paired_with_those_that_show_a_scene():
    found = {(r["variant"], t["variant"]) for _, r, t in iterate_pairs(curated_row(), PairsConfig())}
    assert found == {("segment", "crop"), ("inpaint", "crop"), ("crop", "inpaint"), ("segment", "inpaint")}
    assert not list(iterate_pairs(curated_row(status="rejected"), PairsConfig()))


def test_pairs_of_a_curated_dataset_are_encoded(tmp_path: Path, model: str):
    (tmp_path / "O" / "data").mkdir(parents=True)
    table = pa.Table.from_pylist([curated_row(), curated_row(status="rejected")])
    pq.write_table(table, tmp_path / "O" / "data" / "clips-00000-of-00001.parquet")
    (tmp_path / "O" / "manifest.json").write_text("{}")
    assert isinstance(open_pairs(str(tmp_path / "O"), settings()), CuratedPairs)
    assert run(tmp_path / "O", model, tmp_path / "L", settings()).encoded == 4
    latents = Latents(str(tmp_path / "L"))
    assert sorted(latents.records.get_column("caption")) == ["a brown dog runs"] * 2 + ["a dog on a lawn"] * 2
    assert set(latents.records.get_column("source_id")) == {"v"}
    assert torch.isfinite(latents.read_sample(0, latents.records[0], _all(latents)).references[0]).all()


def _all(latents: Latents) -> Any:
    from training.data.samples import SampleChoice

    return SampleChoice((0,))


def test_places_without_pairs_are_one_clear_line(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("reference,target,caption\n")
    (tmp_path / "odd.jsonl").write_text('{"reference": "a.png"}\n')
    (tmp_path / "bad.jsonl").write_text("{\n")
    write_subjects200k(tmp_path / "none", [])
    for place in ("nowhere", "empty", "empty.csv", "odd.jsonl", "bad.jsonl", "gone.csv", "none"):
        with pytest.raises(RepriseError) as error:
            open_pairs(str(tmp_path / place), settings()).plan_items()
        assert "\n" not in str(error.value)
