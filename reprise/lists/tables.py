"""Rows of a list: CSV, JSONL, JSON or Parquet.

A list that is not in its format is refused with the line at fault. A row with a value that cannot be stored
says so and costs nothing else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reprise.errors import RepriseError
from reprise.lists.extensions import get_extension
from reprise.lists.text import BadTextError, DeepNestingError, decode_text, find_bad_value, parse_json
from reprise.storage import Storage, split_parent

MAX_LIST_BYTES = 4 << 30
_BATCH_ROWS = 4096


@dataclass(frozen=True)
class ListRow:
    """A row of a list."""

    position: str  # as in "line 3" or "row 3", from 1
    values: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None  # why it cannot be used


def read_list(uri: str) -> list[ListRow]:
    """Read the rows of a list.

    Args:
        uri: of a file whose extension says its format.

    Raises:
        RepriseError: there is no such list, it is too large, or it is not in its format; names the line.
    """
    folder, name = split_parent(uri)
    place = Storage.from_uri(folder)
    if place.stat_file(name).size > MAX_LIST_BYTES:
        raise RepriseError(f"{uri} is larger than {MAX_LIST_BYTES >> 30} GiB: split the list")
    data = place.read_bytes(name)
    extension = get_extension(name)
    if extension == "parquet":
        rows = list(_read_parquet(uri, data))
    else:
        try:
            text = decode_text(data)
        except BadTextError as error:
            raise RepriseError(f"{uri} line {error.line}: {error}") from error
        if extension == "csv":
            rows = list(_read_csv(uri, text))
        elif extension == "json" and text.lstrip()[:1] == "[":
            rows = list(_read_json(uri, text))
        else:
            rows = list(_read_json_lines(uri, text))
    return [_check_values(row) for row in rows]


def list_columns(rows: list[ListRow]) -> list[str]:
    """Names of the columns that any row has, sorted."""
    return sorted({column for row in rows for column in row.values})


def _check_values(row: ListRow) -> ListRow:
    """A row with a value that no table can store becomes one without values that says so."""
    bad = {
        column: reason
        for column, value in row.values.items()
        if (reason := find_bad_value(column) or find_bad_value(value))
    }
    if not bad:
        return row
    column, reason = next(iter(bad.items()))
    name = column.encode("ascii", "backslashreplace").decode()[:60]
    storable = {key: value for key, value in row.values.items() if key not in bad}
    return ListRow(row.position, storable, row.problem or f"{row.position}: its {name} holds {reason}")


def _read_csv(uri: str, text: str) -> Iterator[ListRow]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    before = csv.field_size_limit(1 << 30)
    try:
        line = 1
        for cells in reader:
            first, line = line, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_header(uri, first, header)
            elif len(cells) != len(header):
                raise RepriseError(
                    f"{uri} line {first}: {len(cells)} cells for {len(header)} columns; "
                    "put a text with commas in double quotes"
                )
            else:
                yield ListRow(f"line {first}", dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise RepriseError(f"{uri} line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(before)


def _check_header(uri: str, line: int, header: list[str]) -> None:
    if len(set(header)) < len(header):
        raise RepriseError(f"{uri} line {line}: a column is there twice: {', '.join(header)}")
    if len(header) == 1:
        for name, separator in (("semicolons", ";"), ("tabs", "\t")):
            if separator in header[0]:
                raise RepriseError(f"{uri} line {line}: its cells are parted by {name}; use commas")


def read_csv_header(uri: str) -> list[str]:
    """Names of the columns of a CSV list, which may have no rows; [] for other lists."""
    if get_extension(uri) != "csv":
        return []
    folder, name = split_parent(uri)
    text = decode_text(Storage.from_uri(folder).read_bytes(name))
    return [cell.strip() for cell in next(csv.reader(io.StringIO(text, newline="")), [])]


def _read_json(uri: str, text: str) -> Iterator[ListRow]:
    try:
        items = parse_json(text)
    except BadTextError as error:
        raise RepriseError(f"{uri} is not JSON: {error}") from error
    for number, item in enumerate(items, 1):
        yield _make_row(uri, f"item {number}", item)


def _read_json_lines(uri: str, text: str) -> Iterator[ListRow]:
    # Not splitlines, which also takes separators that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            item = parse_json(line)
        except DeepNestingError as error:
            yield ListRow(f"line {number}", {}, f"line {number}: {error}")
        except BadTextError as error:
            raise RepriseError(f"{uri} line {number} is not JSON: {error}") from error
        else:
            yield _make_row(uri, f"line {number}", item)


def _make_row(uri: str, position: str, item: Any) -> ListRow:
    if not isinstance(item, dict):
        raise RepriseError(f"{uri} {position}: expected an object with a key path, found {repr(item)[:40]}")
    return ListRow(position, item)


def _read_parquet(uri: str, data: bytes) -> Iterator[ListRow]:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise RepriseError(f"{uri}: a column is there twice: {', '.join(names)}")
            # Pictures and other bytes have no place in JSON.
            columns = [each.name for each in file.schema_arrow if not _has_bytes(each.type)]
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                yield from _read_batch(batch, number)
                number += batch.num_rows
    except (pa.ArrowException, OSError, OverflowError) as error:
        raise RepriseError(f"{uri} is damaged or not Parquet: {' '.join(str(error).split())}") from error


def _read_batch(batch: pa.RecordBatch, start: int) -> Iterator[ListRow]:
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException, RecursionError):
        # A value that Python cannot hold: a date after the year 9999, text that is not UTF-8.
        yield from (_read_batch_row(batch, at, start + at + 1) for at in range(batch.num_rows))
        return
    for at, row in enumerate(rows, start + 1):
        yield ListRow(f"row {at}", row)


def _read_batch_row(batch: pa.RecordBatch, at: int, number: int) -> ListRow:
    values: dict[str, Any] = {}
    problem = None
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values[name] = column[at].as_py()
        except (ValueError, OverflowError, pa.ArrowException, RecursionError):
            problem = problem or f"row {number}: its {name} cannot be read"
    return ListRow(f"row {number}", values, problem)


def _has_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    return any(_has_bytes(kind.field(i).type) for i in range(kind.num_fields))
