"""reprise encode as a person runs it, on Ray, on what curation writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from tests.curation.dataset.fake_dataset import write_dataset
from tests.training.tiny_models import write_wan
from training.data.samples import SampleChoice
from training.latents.store import Latents

SMALL = ["buckets.area=6144", "buckets.frames=[9,5]", "text_dtype=fp32", "engine.part_rows=3"]


def encode(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["encode", *arguments], catch_exceptions=False)


@pytest.mark.ray
def test_a_curated_dataset_is_encoded_and_every_row_accounted_for(tmp_path: Path) -> None:
    fake = write_dataset(tmp_path / "O", 10, videos=2)
    model = write_wan(tmp_path / "M")
    arguments = ("--dataset", str(fake.root), "--model", str(model), "--output", str(tmp_path / "L"), *SMALL)
    result = encode(*arguments)
    assert result.exit_code == 0, result.output
    kept = fake.count("kept")
    assert f"10 rows = {kept} encoded + {10 - kept} dropped" in result.output
    for status in ("rejected", "failed"):
        assert f"{fake.count(status)} not kept: {status}" in result.output
    latents = Latents(str(tmp_path / "L"))
    assert (
        latents.manifest.model.family == "wan" and latents.manifest.dataset["config_hash"] == "c0ffee123456"
    )
    rows = {row["clip_id"]: row for row in fake.rows}
    for n in range(kept):
        record = latents.records[n]
        row = rows[record.sample_id]
        shown = {
            reference["reference_id"]
            for subject in row["subjects"]
            if subject["verdict"]["kept"]
            for reference in subject["references"]
        }
        assert {r.reference_id for s in record.subjects for r in s.references} == shown
        assert record.caption == row["caption"] and record.source_id == row["video_id"]
        sample = latents.read_sample(0, record, SampleChoice((len(shown) - 1,)))
        assert sample.video.shape[1:] == record.size and str(sample.video.dtype) == "torch.bfloat16"
    ledger = pq.read_table(tmp_path / "L" / "dropped.parquet").to_pylist()
    assert {row["sample_id"] for row in ledger} == set(rows) - {
        latents.records[n].sample_id for n in range(kept)
    }
    # Nothing is left to do, so nothing is loaded and no cluster started.
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "L" / "data").iterdir()}
    assert encode(*arguments).exit_code == 0
    assert before == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "L" / "data").iterdir()}


def test_wrong_calls_are_one_line_and_exit_2(tmp_path: Path) -> None:
    def get_output(*arguments: str) -> str:
        result = encode("--model", str(tmp_path / "M"), "--output", str(tmp_path / "L"), *arguments)
        assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1, result.output
        return str(result.stderr)

    assert "one of --dataset, --videos and --pairs" in get_output()
    assert "one of --dataset, --videos and --pairs" in get_output("--dataset", "a", "--videos", "b")
    assert "buckets.aera" in get_output("--videos", "b", "buckets.aera=5")
    assert "is no folder" in get_output("--videos", "b")


def test_a_dry_run_prints_what_would_be_done(tmp_path: Path) -> None:
    model = tmp_path / "M"
    for part, config in {
        "vae": {"_class_name": "AutoencoderKLWan", "latents_mean": [0.0], "z_dim": 16},
        "text_encoder": {"d_model": 8},
        "transformer": {"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2]},
    }.items():
        (model / part).mkdir(parents=True)
        (model / part / "config.json").write_text(json.dumps(config))
    fake = write_dataset(tmp_path / "O", 10, videos=1)
    result = encode(
        "--dataset", str(fake.root), "--model", str(model), "--output", str(tmp_path / "L"), "--dry-run"
    )
    assert result.exit_code == 0 and "# wan: 81, 65, 49, 33, 17 frames at 16 per second" in result.output
    assert f"# 10 rows, {fake.count('kept')} to encode" in result.output
    assert not (tmp_path / "L").exists()
