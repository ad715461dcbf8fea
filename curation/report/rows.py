"""Read the rows of a dataset, one row group at a time, and only the needed parts of each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.rows.schema import CLIPS
from reprise.errors import RepriseError
from reprise.storage import Storage


def read_row_parts(
    storage: Storage, shards: Sequence[str], parts: Sequence[str], wanted: Set[tuple[int, int]] | None = None
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield (shard number, row number in it, row), in order.

    Args:
        storage: the dataset.
        shards: paths of Parquet files below the dataset.
        parts: fields to read, nested ones with a dot: `subjects.scores`. A file may lack some of them.
        wanted: only these (shard, row) pairs; row groups without one are not read. None: all rows.

    Raises:
        RepriseError: a shard cannot be read; the message names it.
    """
    for shard, rel in enumerate(shards):
        try:
            with storage.open_input(rel) as source:
                file = pq.ParquetFile(source, pre_buffer=storage.is_remote)
                columns = list_leaf_columns(file, parts)
                _check_nesting(file.schema_arrow, storage.join_path(rel))
                first = 0
                for group in range(file.num_row_groups):
                    count = file.metadata.row_group(group).num_rows
                    rows = [r for r in range(count) if wanted is None or (shard, first + r) in wanted]
                    if rows:
                        table = file.read_row_group(group, columns=columns)
                        for row in rows:
                            # One row at a time: a whole row group as Python objects would double the memory.
                            yield shard, first + row, table.slice(row, 1).to_pylist()[0]
                    first += count
        except (pa.ArrowInvalid, OSError) as error:
            message = " ".join(str(error).split())
            raise RepriseError(f"{storage.join_path(rel)} is damaged or not Parquet: {message}") from error


def _check_nesting(found: pa.Schema, where: str) -> None:
    """Raise RepriseError where a column holds plain values instead of records, or the other way round."""
    for field in found:
        index = CLIPS.get_field_index(field.name)
        wanted = CLIPS.field(index).type if index >= 0 else field.type
        if pa.types.is_nested(field.type) != pa.types.is_nested(wanted):
            raise RepriseError(f"{where}: column {field.name} is {field.type}: is it a Reprise clip table?")


def list_leaf_columns(file: pq.ParquetFile, parts: Sequence[str]) -> list[str]:
    """List the leaf columns below `parts`, as Parquet names them: `subjects.list.element.scores.label`.

    Reading only these leaves of a nested column avoids reading its pictures.
    """
    wanted = [tuple(part.split(".")) for part in parts]
    found = []
    for index in range(len(file.schema)):
        path = file.schema.column(index).path
        plain = tuple(name for name in path.split(".") if name not in ("list", "element", "item"))
        if any(plain[: len(part)] == part for part in wanted):
            found.append(path)
    return found
