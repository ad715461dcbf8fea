"""Rows <-> Arrow: the tables that go from one operator to the next.

A table holds rows, or one row with an encoded error instead (`reprise.worker_errors`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import pyarrow as pa

from curation.rows.schema import TRANSIT, ClipRow
from curation.rows.tables import build_table
from curation.runner.job import FinishedRows
from reprise.worker_errors import decode_error

# A row, the seconds spent on it, and instead of a row the error that ends the run.
TRANSIT_SCHEMA = TRANSIT.append(pa.field("error", pa.string()))
FINISHED_SCHEMA = pa.schema(
    [("source_key", pa.string()), ("kept", pa.int64()), ("last", pa.bool_()), ("error", pa.string())]
)


def encode_transit(rows: Sequence[ClipRow], seconds: dict[str, float]) -> pa.Table:
    """Build a table of `TRANSIT_SCHEMA`. The seconds per stage are in its first row."""
    spent = [json.dumps(seconds)] + [None] * (len(rows) - 1)
    return build_table(
        [{**row, "seconds": each} for row, each in zip(rows, spent, strict=False)], TRANSIT_SCHEMA
    )


def decode_transit(table: pa.Table) -> tuple[list[ClipRow], dict[str, float]]:
    """Read the rows of one or more transit tables, and the sum of their seconds per stage."""
    rows = table.drop_columns(["error"]).to_pylist()
    total: dict[str, float] = {}
    for row in rows:
        for stage, value in json.loads(row.pop("seconds", None) or "{}").items():
            total[stage] = total.get(stage, 0.0) + value
    return rows, total


def encode_finished(rows: Iterable[ClipRow]) -> pa.Table:
    """Build a table of `FINISHED_SCHEMA` with what the driver needs of rows that are in a fragment."""
    found: dict[str, FinishedRows] = {}
    for row in rows:
        key = row["source_key"]
        done = found.get(key, FinishedRows(key, 0, False))
        found[key] = FinishedRows(
            key, done.kept + (row["status"] == "kept"), done.last or row["clip_count"] > 0
        )
    return pa.Table.from_pylist([vars(done) for done in found.values()], schema=FINISHED_SCHEMA)


def decode_finished(table: pa.Table) -> list[FinishedRows]:
    """Read a table of `FINISHED_SCHEMA`.

    Raises:
        RepriseError: A worker raised it.
        RuntimeError: A worker failed otherwise, which is a bug; with its traceback.
    """
    rows = table.to_pylist()
    for row in rows:
        if row["error"]:
            raise decode_error(row["error"])
    return [FinishedRows(row["source_key"], row["kept"], row["last"]) for row in rows]


def build_error_table(message: str, schema: pa.Schema) -> pa.Table:
    """Build a table of one row with only an encoded error."""
    return pa.Table.from_pylist([{"error": message}], schema=schema)


def find_error(table: pa.Table) -> str | None:
    """Find the first encoded error in a table."""
    errors: pa.ChunkedArray = table["error"].drop_null()
    return str(errors[0].as_py()) if len(errors) else None
