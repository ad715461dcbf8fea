"""Rows of a list: CSV, JSONL, JSON or Parquet.

A row that is not in the list's format, or that has a value which cannot be stored, says so and costs nothing
else. A list without one good row is refused with the first line at fault.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reprise.errors import RepriseError
from reprise.lists.extensions import get_extension
from reprise.lists.text import (
    BadTextError,
    DeepNestingError,
    decode_lines,
    find_bad_value,
    is_text,
    parse_json,
    quote_names,
)
from reprise.storage import Storage, split_parent

MAX_LIST_BYTES = 4 << 30
_BATCH_ROWS = 4096
_CLOSERS = {"[": "]", "{": "}"}
_MAX_ROW_LINES = 1000  # of a CSV row; above this a quote was not closed


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
            text = decode_lines(data)
        except BadTextError as error:
            raise RepriseError(f"{uri}: {error}") from error
        if extension == "csv":
            rows = list(_read_csv(uri, text))
        elif extension == "json" and text.lstrip()[:1] == "[":
            rows = list(_read_json(text))
        else:
            rows = list(_read_json_lines(text))
    rows = [_check_values(row) for row in rows]
    if rows and not any(row.values for row in rows):
        raise RepriseError(f"{uri} {rows[0].problem or 'has rows without columns'}")
    return rows


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
    storable = {key: value for key, value in row.values.items() if key not in bad}
    return ListRow(
        row.position, storable, row.problem or f"{row.position}: its {quote_names([column])} holds {reason}"
    )


def _read_csv(uri: str, text: str) -> Iterator[ListRow]:
    lines = list(io.StringIO(text, newline=""))
    header: list[str] | None = None
    before = csv.field_size_limit(1 << 30)
    try:
        at = 0
        while at < len(lines):
            cells, count, problem = _read_csv_row(lines, at)
            position = f"line {at + 1}"
            if header is None and (cells or problem):
                if problem:
                    raise RepriseError(f"{uri} {position}: {problem}")
                header = [cell.strip() for cell in cells]
                _check_header(uri, at + 1, header)
            elif header is not None and problem is None and len(cells) not in (0, len(header)):
                problem = (
                    f"{len(cells)} cells for {len(header)} columns; put a text with commas in double quotes"
                )
            elif header is not None and cells:
                yield ListRow(position, dict(zip(header, cells, strict=True)))
            if problem:
                yield ListRow(position, {}, f"{position}: {problem}")
            at += count
    finally:
        csv.field_size_limit(before)


def _read_csv_row(lines: list[str], at: int) -> tuple[list[str], int, str | None]:
    """(cells, number of lines, problem) of the row that begins at a line; a row at fault takes one line."""
    # A reader of its own: one that goes on would take the rows after an open quote for one text.
    reader = csv.reader(lines[at : at + 1], strict=True)
    with contextlib.suppress(csv.Error):
        return next(reader, []), 1, None
    reader = csv.reader(lines[at : at + _MAX_ROW_LINES], strict=True)
    try:
        return next(reader, []), reader.line_num, None
    except csv.Error as error:
        return [], 1, str(error)


def _check_header(uri: str, line: int, header: list[str]) -> None:
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        raise RepriseError(f"{uri} line {line}: a column is there twice: {quote_names(header)}")
    if len(header) == 1:
        for name, separator in (("semicolons", ";"), ("tabs", "\t")):
            if separator in header[0]:
                raise RepriseError(f"{uri} line {line}: its cells are parted by {name}; use commas")


def read_csv_header(uri: str) -> list[str]:
    """Names of the columns of a CSV list, which may have no rows; [] for other lists."""
    if get_extension(uri) != "csv":
        return []
    folder, name = split_parent(uri)
    text = decode_lines(Storage.from_uri(folder).read_bytes(name))
    return [cell.strip() for cell in next(csv.reader(io.StringIO(text, newline="")), [])]


def _read_json(text: str) -> Iterator[ListRow]:
    try:
        items = parse_json(text)
    except BadTextError:
        for number, part in enumerate(_split_array(text), 1):
            yield _read_json_object(f"item {number}", part)
        return
    for number, item in enumerate(items, 1):
        yield _make_row(f"item {number}", item)


def _read_json_lines(text: str) -> Iterator[ListRow]:
    # Not splitlines, which also takes separators that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _read_json_object(f"line {number}", line)


def _read_json_object(position: str, text: str) -> ListRow:
    if not is_text(text):
        return ListRow(position, {}, f"{position}: not UTF-8 text")
    try:
        return _make_row(position, parse_json(text))
    except DeepNestingError as error:
        return ListRow(position, {}, f"{position}: {error}")
    except BadTextError as error:
        return ListRow(position, {}, f"{position} is not JSON: {error}")


def _split_array(text: str) -> Iterator[str]:
    """The items of a JSON array one of which cannot be parsed, as they stand."""
    start = text.index("[") + 1
    closers: list[str] = []  # of what is open
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', text, re.DOTALL):
        sign = token[0]
        if sign in _CLOSERS:
            closers.append(_CLOSERS[sign])
        elif closers and sign == closers[-1]:
            closers.pop()
        if not closers or (len(closers) == 1 and sign == ","):
            if text[start : token.start()].strip():
                yield text[start : token.start()]
            start = token.end()
            if not closers:
                return
    yield text[start:]  # the array is not closed: its last item cannot be parsed


def _make_row(position: str, item: Any) -> ListRow:
    if not isinstance(item, dict):
        return ListRow(
            position, {}, f"{position}: expected an object with a key path, found {ascii(item)[:40]}"
        )
    return ListRow(position, item)


def _read_parquet(uri: str, data: bytes) -> Iterator[ListRow]:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise RepriseError(f"{uri}: a column is there twice: {quote_names(names)}")
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
            problem = problem or f"row {number}: its {quote_names([name])} cannot be read"
    return ListRow(f"row {number}", values, problem)


def _has_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    return any(_has_bytes(kind.field(i).type) for i in range(kind.num_fields))
