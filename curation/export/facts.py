"""Read the columns of clip rows that hold neither pictures nor masks, so that planning is cheap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curation.rows.schema import CLIPS
from curation.rows.tables import extract_rows
from reprise.parquet_rows import list_column_paths, read_table_row_groups
from reprise.storage import Storage

_PICTURES = ("frames", "subjects.references.image", "subjects.mask", "subjects.track")


def read_light_table(dataset: Storage, shard: str) -> pa.Table:
    """Read a shard without its pictures and masks. A shard with an older schema has fewer columns.

    Raises:
        RepriseError: the shard is missing or damaged, or it is not a clip table.
    """
    known = set(list_column_paths(dataset, shard))
    columns = [name for name in _list_leaves(CLIPS, "") if name in known]
    tables = [table for _, table in read_table_row_groups(dataset, shard, names=columns)]
    return pa.concat_tables(tables) if tables else CLIPS.empty_table()


def extract_light_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Convert a table of `read_light_table` to rows with every column of the schema; absent ones are null."""
    return extract_rows(table, CLIPS)


def _list_leaves(fields: Any, prefix: str) -> Iterator[str]:
    """Yield the dotted names of the columns that hold neither pictures nor masks."""
    for field in fields:
        name = prefix + field.name
        if name in _PICTURES:
            continue
        kind = field.type
        while pa.types.is_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            yield from _list_leaves(kind, f"{name}.")
        else:
            yield name


def list_subjects(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the kept subjects of a row, in the order in which the caption names them."""
    caption = (row["caption"] or "").lower()
    kept = [subject for subject in row["subjects"] or () if (subject["verdict"] or {}).get("kept")]

    def find_place(subject: dict[str, Any]) -> tuple[int, int, str]:
        at = caption.find((subject["phrase"] or "").lower())
        return (at if at >= 0 else len(caption), subject["instance"] or 0, subject["subject_id"])

    return sorted(kept, key=find_place)


def list_references(subject: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the kept references of a subject, sorted by id."""
    kept = [each for each in subject["references"] or () if each["kept"]]
    return sorted(kept, key=lambda each: str(each["reference_id"]))
