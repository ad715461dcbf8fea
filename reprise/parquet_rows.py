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
    """Rows of a Parquet file, all or some by number, with some columns; nested ones have dotted names."""
    where = folder.join_path(rel)
    try:
        with folder.open_input(rel) as opened:
            file = pq.ParquetFile(opened)
            paths = {
                _strip_list_levels(file.schema.column(n).path): file.schema.column(n).path
                for n in range(len(file.schema))
            }
            missing = [name for name in names if name not in paths]
            if missing:
                raise RepriseError(f"{where} has no column {', '.join(missing)}: is it a Reprise clip table?")
            columns = [paths[name] for name in names]
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                inside = range(count) if numbers is None else [n - start for n in numbers]
                wanted = [n for n in inside if 0 <= n < count]
                start += count
                if wanted:
                    table = file.read_row_group(group, columns=columns)
                    yield from table.take(pa.array(wanted)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RepriseError(f"{where} cannot be read: {' '.join(str(error).split())}") from error


def _strip_list_levels(path: str) -> str:
    """A Parquet path without the names of list levels."""
    return re.sub(r"\.list\.(element|item|array)(?=\.|$)", "", path)
