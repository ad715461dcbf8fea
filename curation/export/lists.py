"""Write the lists that trainers read (JSON lines, one JSON list, CSV), record by record."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from curation.export.unit_writer import UnitWriter


def write_json_lines(writer: UnitWriter, path: str, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    with writer.open_file(path) as stream:
        for record in records:
            stream.write((json.dumps(record, ensure_ascii=False) + "\n").encode())


def write_json_list(writer: UnitWriter, path: str, records: Iterable[dict[str, Any]]) -> None:
    """Write a JSON list with one object per line."""
    with writer.open_file(path) as stream:
        separator = "[\n"
        for record in records:
            stream.write((separator + json.dumps(record, ensure_ascii=False)).encode())
            separator = ",\n"
        stream.write(b"\n]\n" if separator == ",\n" else b"[]\n")


def write_json_object(writer: UnitWriter, path: str, pairs: Iterable[tuple[str, Any]]) -> None:
    """Write a JSON object with one key a line."""
    with writer.open_file(path) as stream:
        separator = "{\n"
        for key, value in pairs:
            text = f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
            stream.write((separator + text).encode())
            separator = ",\n"
        stream.write(b"\n}\n" if separator == ",\n" else b"{}\n")


def write_csv(
    writer: UnitWriter, path: str, columns: Sequence[str], records: Iterable[dict[str, Any]]
) -> None:
    """Write a CSV file with a header. Only fields that need quotes are quoted."""
    with writer.open_file(path) as stream:
        stream.write(_format_csv_row(columns))
        for record in records:
            stream.write(_format_csv_row([record[column] for column in columns]))


def _format_csv_row(values: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()
