"""Some rows and some columns of a Parquet file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reprise.errors import RepriseError
from reprise.storage import Storage


def read_placed_rows(
    folder: Storage, names: Sequence[str], places: Sequence[tuple[str, int]], *, per_row: int = 1
) -> Iterator[tuple[str, dict[str, Any], int]]:
    """(file, row, item of the row) for each place, file by file; each row is read once.

    Place (file, number) is item number % per_row of row number // per_row.
    """
    for file in dict.fromkeys(file for file, _ in places):
        wanted = [number for other, number in places if other == file]
        rows = sorted({number // per_row for number in wanted})
        held = dict(zip(rows, read_table_rows(folder, file, names, rows), strict=True))
        for number in wanted:
            yield file, held[number // per_row], number % per_row


def read_table_rows(
    folder: Storage, rel: str, names: Sequence[str], numbers: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield rows of a Parquet file, all or some by number, with some columns; nested ones have dotted names.

    Raises:
        RepriseError: the file lacks a column, or cannot be read.
    """
    for _, table in read_table_row_groups(folder, rel, numbers, names):
        yield from table.to_pylist()


def read_table_row_groups(
    folder: Storage, rel: str, numbers: Sequence[int] | None = None, names: Sequence[str] | None = None
) -> Iterator[tuple[list[int], pa.Table]]:
    """Yield (numbers of rows, table of these rows) for each row group of a Parquet file that holds any.

    Args:
        folder: that holds the file.
        rel: path of the file.
        numbers: which rows, ascending; None: all.
        names: which columns, nested ones by dotted names; None: all.

    Raises:
        RepriseError: the file lacks a column, or cannot be read.
    """
    where = folder.join_path(rel)
    try:
        with folder.open_input(rel) as opened:
            file = pq.ParquetFile(opened)
            columns = None if names is None else _find_columns(file, names, where)
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                inside = range(count) if numbers is None else [n - start for n in numbers]
                wanted = [n for n in inside if 0 <= n < count]
                if wanted:
                    table = file.read_row_group(group, columns=columns)
                    yield [start + n for n in wanted], table.take(pa.array(wanted))
                start += count
    except (pa.ArrowException, OSError) as error:
        raise RepriseError(f"{where} cannot be read: {' '.join(str(error).split())}") from error


def list_column_paths(folder: Storage, rel: str) -> list[str]:
    """Dotted names of all columns of a Parquet file, nested ones among them.

    Raises:
        RepriseError: the file cannot be read.
    """
    try:
        with folder.open_input(rel) as opened:
            return list(_map_columns(pq.ParquetFile(opened)))
    except (pa.ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise RepriseError(f"{folder.join_path(rel)} cannot be read: {message}") from error


def _map_columns(file: pq.ParquetFile) -> dict[str, str]:
    """Dotted name -> Parquet path."""
    paths = [file.schema.column(number).path for number in range(len(file.schema))]
    return {_strip_list_levels(path): path for path in paths}


def _find_columns(file: pq.ParquetFile, names: Sequence[str], where: str) -> list[str]:
    paths = _map_columns(file)
    missing = [name for name in names if name not in paths]
    if missing:
        raise RepriseError(f"{where} has no column {', '.join(missing)}: is it a Reprise clip table?")
    return [paths[name] for name in names]


def _strip_list_levels(path: str) -> str:
    """A Parquet path without the names of list levels."""
    return re.sub(r"\.list\.(element|item|array)(?=\.|$)", "", path)
