"""The written-down schema, and the libraries that people read datasets with."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curation.config import load_config
from curation.rows import schema
from curation.rows.schema import CLIPS, TRANSIT, VIDEOS, ClipRow
from curation.rows.tables import build_table, check_columns, extract_rows, select_version
from curation.runner.graph import build_stage
from curation.stages.stage import run_stage
from reprise.errors import RepriseError
from tests.curation.clips import clip, kept_clip


def full_row(number: int = 0) -> ClipRow:
    """A kept row with references, one with transparency among them."""
    rows = [kept_clip(number, scores={"sharpness": 300.0 + number})]
    for name in ("crop", "redux"):
        rows = run_stage(build_stage(name, load_config()), rows, {})
    return rows[0]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of two kept rows and one that failed."""
    path = tmp_path_factory.mktemp("dataset") / "clips.parquet"
    bad: Any = {**clip(2), "status": "failed", "frames": [], "caption": None, "video_id": None}
    bad["stop"] = {"stage": "slice", "reason": "moov atom not found", "value": None, "threshold": None}
    pq.write_table(build_table([full_row(0), full_row(1), bad], CLIPS), path)
    return path


# ---- the classes and the Arrow types agree --------------------------------------------------------------

SCHEMA_FILE = Path(__file__).with_name("schema_4.txt")
PLAIN = {
    str: [pa.string()],
    int: [pa.int32(), pa.int64()],
    float: [pa.float64()],
    bool: [pa.bool_()],
    bytes: [pa.binary()],
}


def agree(annotation: Any, kind: pa.DataType, at: str) -> None:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        (annotation,) = [each for each in typing.get_args(annotation) if each is not types.NoneType]
    if typing.get_origin(annotation) is list:
        assert pa.types.is_list(kind), at
        agree(typing.get_args(annotation)[0], kind.value_type, at)
    elif typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation)
        assert list(hints) == [field.name for field in kind], at
        for field in kind:
            agree(hints[field.name], field.type, f"{at}.{field.name}")
    else:
        assert kind in PLAIN[annotation], at


def test_the_classes_equal_the_arrow_schemas_name_by_name() -> None:
    agree(schema.ClipRow, pa.struct(list(CLIPS)), "clip")
    agree(schema.VideoRow, pa.struct(list(VIDEOS)), "video")
    assert TRANSIT.names == [*CLIPS.names, "seconds"]


def test_the_arrow_schemas_are_those_of_published_datasets() -> None:
    """Names, order, types and metadata are in published files: a new column needs a new version."""
    assert "\n".join(_describe_schema("clips", CLIPS)) == SCHEMA_FILE.read_text(encoding="utf-8").rstrip()
    features = json.loads(CLIPS.metadata[b"huggingface"])["info"]["features"]
    assert features["subjects"][0]["references"][0]["image"] == {"_type": "Image"}
    assert hashlib.sha256(CLIPS.metadata[b"huggingface"]).hexdigest()[:16] == "24ed86bee42e853f"
    assert hashlib.sha256(CLIPS.serialize()).hexdigest()[:16] == "443c0587392c84a7"
    assert hashlib.sha256(VIDEOS.serialize()).hexdigest()[:16] == "568219a62a4c3529"


def _describe_schema(title: str, schema: pa.Schema) -> list[str]:
    return [title, *(line for field in schema for line in _describe_field(field, "  "))]


def _describe_field(field: pa.Field, indent: str) -> list[str]:
    assert field.nullable
    assert field.metadata is None
    kind, suffix = (field.type.value_type, "[]") if pa.types.is_list(field.type) else (field.type, "")
    if not pa.types.is_struct(kind):
        return [f"{indent}{field.name}: {kind}{suffix}"]
    inner = [line for each in kind for line in _describe_field(each, indent + "  ")]
    return [f"{indent}{field.name}: record{suffix}", *inner]


# ---- writing and reading ---------------------------------------------------------------------------------


def test_a_full_row_survives_parquet(dataset: Path) -> None:
    row = full_row()
    (stored,) = pq.read_table(dataset).slice(0, 1).to_pylist()
    scores = stored["subjects"][0]["scores"]
    assert scores.keys() == schema.Scores.__annotations__.keys()
    stored["subjects"][0]["scores"] = {name: value for name, value in scores.items() if value is not None}
    assert stored == row
    check_columns(pq.read_schema(dataset), CLIPS, "clips.parquet")
    again = build_table(pq.read_table(dataset).to_pylist(), CLIPS)
    assert again.equals(pq.read_table(dataset).cast(CLIPS))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda row: row.update(colour="red"), "colour"),
        (lambda row: row["subjects"][0]["scores"].update(sharpnes=1.0), "subjects.scores.sharpnes"),
        (
            lambda row: row["subjects"][0]["references"][0]["image"].update(size=1),
            "subjects.references.image.size",
        ),
        (lambda row: row["frames"][0].update(width=1), "frames.width"),
    ],
)
def test_a_field_that_the_schema_does_not_know_is_refused_at_any_depth(change: Any, name: str) -> None:
    row = full_row()
    change(row)
    with pytest.raises(RepriseError, match=f"row {row['clip_id']} has an unknown field {name}$"):
        build_table([row], CLIPS)


@pytest.mark.parametrize(
    ("field", "value"),
    [("fps", "fast"), ("num_frames", 2**70), ("caption", b"\xff"), ("caption", "\udc80"), ("frames", 3)],
)
def test_a_value_of_another_type_is_refused_in_one_line(field: str, value: Any) -> None:
    row: Any = {**clip(), field: value}
    with pytest.raises(RepriseError, match="a row does not fit the schema") as caught:
        build_table([row], CLIPS)
    assert "\n" not in str(caught.value)


def test_a_field_that_a_row_does_not_have_is_null() -> None:
    table = build_table([{"clip_id": "a"}], CLIPS)
    assert table["caption"].to_pylist() == [None]


def change_column(name: str, kind: pa.DataType) -> pa.Schema:
    return CLIPS.set(CLIPS.names.index(name), pa.field(name, kind))


def test_missing_columns_are_named() -> None:
    found = CLIPS.remove(CLIPS.names.index("frames")).remove(CLIPS.names.index("cut"))
    with pytest.raises(
        RepriseError, match=r"x\.parquet has no column cut, frames: is it a Reprise clip table\?"
    ):
        check_columns(found, CLIPS, "x.parquet")
    with pytest.raises(RepriseError, match=r"has no column clip_id, video_id, .* and 31 more:"):
        check_columns(pa.schema([("a", pa.int8())]), CLIPS, "x.parquet")


def test_a_column_of_another_type_is_named_down_to_the_field_that_differs() -> None:
    with pytest.raises(RepriseError, match=r"column fps is string, expected double; .* another version"):
        check_columns(change_column("fps", pa.string()), CLIPS, "x")
    subject = CLIPS.field("subjects").type.value_type
    without = pa.list_(pa.struct([field for field in subject if field.name != "count"]))
    with pytest.raises(RepriseError, match="column subjects has no field count"):
        check_columns(change_column("subjects", without), CLIPS, "x")
    other = pa.list_(
        pa.struct([pa.field("box", pa.string()) if field.name == "box" else field for field in subject])
    )
    with pytest.raises(RepriseError, match=r"column subjects.box is string, expected list<item: double>"):
        check_columns(change_column("subjects", other), CLIPS, "x")
    extra = pa.list_(pa.struct([*subject, pa.field("colour", pa.string())]))
    with pytest.raises(RepriseError, match=r"column subjects has fields .*colour, expected"):
        check_columns(change_column("subjects", extra), CLIPS, "x")


def test_further_columns_and_another_order_are_fine() -> None:
    check_columns(pa.schema([*reversed(list(CLIPS)), pa.field("own", pa.int8())]), CLIPS, "x")


# ---- other people's readers ------------------------------------------------------------------------------


def test_hugging_face_datasets_shows_pictures(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset("parquet", data_files=str(dataset), cache_dir=str(tmp_path))["train"]
    assert len(loaded) == 3
    row = loaded[0]
    assert row["frames"][0]["image"].size == (320, 180), "a PIL picture in a top-level list"
    references = {each["variant"]: each for each in row["subjects"][0]["references"]}
    assert references["crop"]["image"].mode == "RGB"
    assert references["segment"]["image"].mode == "RGBA", "and nested deeper, with its transparency"
    assert references["segment"]["image"].size == (
        references["segment"]["width"],
        references["segment"]["height"],
    )
    assert row["subjects"][0]["scores"]["sharpness"] == 300
    assert loaded[2]["frames"] == []


def test_duckdb_looks_into_nested_rows(dataset: Path) -> None:
    found = duckdb.sql(
        f"""
        SELECT s.category, count(*) AS subjects, avg(s.scores.sharpness) AS sharpness,
               sum(len(s.references)) AS pictures
        FROM (SELECT unnest(subjects) AS s FROM '{dataset}' WHERE status = 'kept')
        WHERE s.verdict.kept GROUP BY 1
        """
    ).fetchall()
    assert found == [("ball", 2, 300.5, 6)]
    ((reason,),) = duckdb.sql(f"SELECT stop.reason FROM '{dataset}' WHERE status = 'failed'").fetchall()
    assert reason == "moov atom not found"


def test_plain_pyarrow_reads_nested_columns_without_pictures(dataset: Path) -> None:
    column = "subjects.list.element.scores.sharpness"
    table = pq.ParquetFile(dataset).read(columns=["clip_id", column])
    sharpness = pc.struct_field(pc.list_flatten(table["subjects"]), ["scores", "sharpness"])
    assert sharpness.to_pylist() == [300, 301]
    kept = pq.read_table(dataset, filters=[("status", "=", "kept")])
    assert kept.num_rows == 2


def test_a_table_records_the_version_of_its_schema(dataset: Path) -> None:
    assert pq.read_schema(dataset).metadata[b"reprise.schema"] == schema.SCHEMA_VERSION.encode()


# ---- older versions --------------------------------------------------------------------------------------


def as_version_1(row: ClipRow) -> pa.Table:
    """A row as it was written before there were tracks and flow."""
    plain = build_table([row], CLIPS).to_pylist()
    for each in plain:
        del each["flow_foreground"], each["flow_background"]
        del each["source_transfer"], each["source_interlaced"]
        del each["clip_bytes"], each["clip_blake2b"]
        for subject in each["subjects"]:
            for name in ("found_index", "found_box", "track", "reference_frames"):
                del subject[name]
            for name in ("visible_share", "flow_foreground", "flow_background"):
                del subject["scores"][name]
            for reference in subject["references"]:
                del reference["sha256"], reference["frame_index"]
    old = select_version(CLIPS, "1").with_metadata({b"reprise.schema": b"1"})
    return pa.Table.from_pylist(plain, schema=old)


def test_a_table_of_an_older_version_is_read_with_nulls_for_what_it_lacks() -> None:
    row = full_row()
    table = as_version_1(row)
    check_columns(table.schema, CLIPS, "old.parquet")
    (read,) = extract_rows(table, CLIPS)
    assert (read["flow_foreground"], read["subjects"][0]["track"]) == (None, None)
    assert read["subjects"][0]["references"][0]["sha256"] is None
    assert read["subjects"][0]["scores"]["sharpness"] == 300
    assert build_table([read], CLIPS).num_rows == 1
    (same,) = extract_rows(build_table([row], CLIPS), CLIPS)
    assert same["subjects"][0]["references"][0]["frame_index"] == 0


def test_an_older_table_that_lacks_more_than_that_is_still_refused() -> None:
    table = as_version_1(full_row())
    with pytest.raises(RepriseError, match="has no column cut"):
        check_columns(table.schema.remove(table.schema.names.index("cut")), CLIPS, "old.parquet")
    claims = table.schema.with_metadata({b"reprise.schema": b"2"})
    with pytest.raises(RepriseError, match="no column flow_foreground, flow_background"):
        check_columns(claims, CLIPS, "odd.parquet")


def test_a_table_of_a_newer_version_asks_for_an_update() -> None:
    newer = CLIPS.with_metadata({b"reprise.schema": b"5"})
    with pytest.raises(RepriseError, match="version 5 of the schema, and 4 is known here: update Reprise"):
        check_columns(newer, CLIPS, "new.parquet")
