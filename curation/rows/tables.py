"""Rows into Arrow tables and back, checked: what does not fit the schema is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from curation.rows.columns import list_later_columns
from curation.rows.schema import SCHEMA_VERSION, ClipRow
from reprise.errors import RepriseError


def build_table(rows: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Convert rows to an Arrow table. A field that a row does not have is null.

    Raises:
        RepriseError: a field that the schema does not know, at any depth, or a value of another type.
    """
    listed = list(rows)
    for row in listed:
        unknown = next(_find_unknown_fields(row, schema, ""), None)
        if unknown:
            raise RepriseError(
                f"row {row.get('clip_id') or row.get('source_path')} has an unknown field {unknown}"
            )
    try:
        return pa.Table.from_pylist(listed, schema=schema)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        message = " ".join(str(error).split())
        raise RepriseError(f"a row does not fit the schema: {message}") from error


def _find_unknown_fields(value: Any, kind: Iterable[pa.Field], prefix: str) -> Iterator[str]:
    """Dotted names of the fields that a record has and its type has not; Arrow would drop them silently."""
    types = {field.name: field.type for field in kind}
    for name, inner in value.items():
        if name not in types:
            yield prefix + name
            continue
        nested = types[name]
        several = pa.types.is_list(nested)
        nested = nested.value_type if several else nested
        if pa.types.is_struct(nested):
            for each in inner if several and isinstance(inner, list) else [inner]:
                if isinstance(each, dict):
                    yield from _find_unknown_fields(each, nested, f"{prefix}{name}.")


def extract_rows(table: pa.Table | pa.RecordBatch, schema: pa.Schema) -> list[Any]:
    """Convert an Arrow table to records with every field of `schema`: what an older file lacks is null.

    Call `check_columns` first: it tells an older file from a wrong one.
    """
    rows: list[Any] = table.to_pylist()
    known = {field.name: field.type for field in table.schema}
    if any(
        name not in known or not _is_same_type(known[name], schema.field(name).type) for name in schema.names
    ):
        for row in rows:
            _fill_missing_fields(row, schema)
    return rows


def _fill_missing_fields(value: dict[str, Any], kind: Iterable[pa.Field]) -> None:
    for field in kind:
        inner = value.setdefault(field.name, None)
        nested = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_struct(nested):
            for each in inner if isinstance(inner, list) else [inner]:
                if isinstance(each, dict):
                    _fill_missing_fields(each, nested)


def check_columns(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Compare the columns of a file with those of a table.

    Further columns and another order are fine. So is an older version of the schema: `extract_rows` reads it.

    Raises:
        RepriseError: naming `where`, the missing columns and those of another type; or the file was written
            by a newer version.
    """
    version = (found.metadata or {}).get(b"reprise.schema", SCHEMA_VERSION.encode()).decode()
    if version.isdigit() and int(version) > int(SCHEMA_VERSION):
        raise RepriseError(
            f"{where} has version {version} of the schema, and {SCHEMA_VERSION} is known here: update Reprise"
        )
    wanted = select_version(wanted, version)
    missing = [name for name in wanted.names if name not in found.names]
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise RepriseError(f"{where} has no column {names}: is it a Reprise clip table?")
    for name in wanted.names:
        if not _is_same_type(found.field(name).type, wanted.field(name).type):
            difference = _describe_difference(found.field(name).type, wanted.field(name).type, name)
            raise RepriseError(f"{where}: {difference}; it was written by another version of the schema")


def select_version(schema: pa.Schema, version: str) -> pa.Schema:
    """The schema without the columns that were added after a version (all of them, if it is no number)."""
    if not version.isdigit():
        return schema
    later = list_later_columns(ClipRow, int(version))
    return pa.schema(_remove_fields(schema, later, "")) if later else schema


def _remove_fields(fields: Iterable[pa.Field], later: frozenset[str], prefix: str) -> list[pa.Field]:
    found = []
    for field in fields:
        name = prefix + field.name
        if name in later:
            continue
        kind = field.type
        several = pa.types.is_list(kind)
        nested = kind.value_type if several else kind
        if pa.types.is_struct(nested):
            nested = pa.struct(_remove_fields(nested, later, f"{name}."))
            kind = pa.list_(nested) if several else nested
        found.append(pa.field(field.name, kind))
    return found


def _describe_difference(found: pa.DataType, wanted: pa.DataType, column: str) -> str:
    """Say where two types differ; a nested type in full would fill a screen."""
    if pa.types.is_list(found) and pa.types.is_list(wanted):
        return _describe_difference(found.value_type, wanted.value_type, column)
    if pa.types.is_struct(found) and pa.types.is_struct(wanted):
        here, there = {f.name: f.type for f in found}, {f.name: f.type for f in wanted}
        for name in there:
            if name not in here:
                return f"column {column} has no field {name}"
            if not _is_same_type(here[name], there[name]):
                return _describe_difference(here[name], there[name], f"{column}.{name}")
        return f"column {column} has fields {', '.join(here)}, expected {', '.join(there)}"
    return f"column {column} is {found}, expected {wanted}"


def _is_same_type(left: pa.DataType, right: pa.DataType) -> bool:
    """Equal but for the name that Parquet gives a list's items."""
    if pa.types.is_list(left) and pa.types.is_list(right):
        return _is_same_type(left.value_type, right.value_type)
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        return [f.name for f in left] == [f.name for f in right] and all(
            _is_same_type(a.type, b.type) for a, b in zip(left, right, strict=True)
        )
    return bool(left.equals(right))
