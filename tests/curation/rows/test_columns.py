from __future__ import annotations

from typing import Annotated, TypedDict

import pyarrow as pa
import pytest

from curation.rows.columns import (
    Column,
    Int32,
    derive_fields,
    describe_columns,
    list_later_columns,
    make_blank_record,
)


class Point(TypedDict):
    x: Annotated[Int32, Column("px")]
    note: Annotated[str | None, Column("null: none", since=3)]


class Measures(TypedDict, total=False):
    blur: Annotated[float | None, Column("0..1", since=2)]


class Shape(TypedDict):
    name: Annotated[str, Column("what it is called")]
    corners: Annotated[list[Point] | None, Column("null: unknown")]
    tags: Annotated[list[str], Column("words")]
    measures: Annotated[Measures, Column("what was measured")]
    sides: Annotated[int, Column("how many", blank=0)]


def test_arrow_types_follow_from_the_declaration() -> None:
    point = pa.struct([("x", pa.int32()), ("note", pa.string())])
    assert derive_fields(Shape) == [
        pa.field("name", pa.string()),
        pa.field("corners", pa.list_(point)),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("measures", pa.struct([("blur", pa.float64())])),
        pa.field("sides", pa.int64()),
    ]


def test_a_blank_record_is_null_or_empty_where_nothing_is_given() -> None:
    made = make_blank_record(Shape, name="square")
    assert made == {"name": "square", "corners": None, "tags": [], "measures": {}, "sides": 0}
    made["tags"].append("red")
    assert make_blank_record(Shape, name="square")["tags"] == [], "no record shares another one's list"


def test_a_blank_record_needs_what_cannot_be_blank_and_refuses_what_is_unknown() -> None:
    with pytest.raises(TypeError, match=r"Shape\.name has no blank value"):
        make_blank_record(Shape)
    with pytest.raises(TypeError, match="Shape has no column colour"):
        make_blank_record(Shape, name="square", colour="red")


def test_later_columns_are_found_at_any_depth() -> None:
    assert list_later_columns(Shape, 1) == {"corners.note", "measures.blur"}
    assert list_later_columns(Shape, 2) == {"corners.note"}
    assert list_later_columns(Shape, 3) == frozenset()


def test_the_description_lists_nested_columns_below_their_record() -> None:
    assert [(each.name, each.type) for each in describe_columns(Shape)] == [
        ("name", "string"),
        ("corners", "record[]"),
        ("corners[].x", "int32"),
        ("corners[].note", "string"),
        ("tags", "string[]"),
        ("measures", "record"),
        ("measures.blur", "double"),
        ("sides", "int64"),
    ]
    assert "corners[].x" not in {each.name for each in describe_columns(Shape, opaque=[Point])}
