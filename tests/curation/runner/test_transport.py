"""What goes from one operator to the next."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.runner.job import FinishedRows
from curation.runner.transport import (
    FINISHED_SCHEMA,
    TRANSIT_SCHEMA,
    build_error_table,
    decode_finished,
    decode_transit,
    encode_finished,
    encode_transit,
    find_error,
)
from reprise.errors import RepriseError
from reprise.worker_errors import encode_error
from tests.curation.clips import clip


def test_seconds_of_tables_that_are_joined_add_up() -> None:
    tables = [encode_transit([clip(0), clip(1)], {"slice": 1.5}), encode_transit([clip(2)], {"slice": 2.0})]
    rows, seconds = decode_transit(pa.concat_tables(tables))
    assert [row["clip_id"] for row in rows] == [clip(number)["clip_id"] for number in range(3)]
    assert seconds == {"slice": 3.5}


def test_finished_rows_are_counted_by_video() -> None:
    rows = [clip(0), clip(1), clip(1)]
    for row in rows:
        row["clip_count"] = 0
    rows[0]["status"] = rows[1]["status"] = "kept"
    rows[2]["clip_count"] = 2
    assert decode_finished(encode_finished(rows)) == [
        FinishedRows(rows[0]["source_key"], 1, False),
        FinishedRows(rows[1]["source_key"], 1, True),
    ]


@pytest.mark.parametrize("schema", [TRANSIT_SCHEMA, FINISHED_SCHEMA])
def test_an_error_is_found_in_any_table(schema: pa.Schema) -> None:
    table = build_error_table(encode_error(RepriseError("the disk is full")), schema)
    assert table.schema == schema
    assert "the disk is full" in (find_error(table) or "")


def test_an_error_of_a_worker_is_raised_in_the_driver() -> None:
    table = build_error_table(encode_error(RepriseError("the disk is full")), FINISHED_SCHEMA)
    with pytest.raises(RepriseError, match=r"^the disk is full$"):
        decode_finished(table)


def test_a_table_without_errors_has_none() -> None:
    assert find_error(encode_transit([clip()], {})) is None
