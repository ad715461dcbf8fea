from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa

from reprise.digest import FileHasher, compute_digest, hash_stream
from reprise.storage import Storage


def test_a_digest_depends_on_content_and_not_on_the_order_of_keys() -> None:
    assert compute_digest({"a": 1, "b": [2.5, None]}) == compute_digest({"b": [2.5, None], "a": 1})
    assert compute_digest("a", "b") != compute_digest("ab") != compute_digest(["a", "b"])
    assert len(compute_digest("a", length=40)) == 40


def test_a_file_is_hashed_while_it_is_written(tmp_path: Path) -> None:
    hasher = FileHasher()
    tables = [pa.table({"a": list(range(n))}) for n in (3, 5000)]
    Storage.from_uri(tmp_path).write_parquet("t.parquet", tables, tables[0].schema, hasher=hasher)
    data = (tmp_path / "t.parquet").read_bytes()
    assert (hasher.bytes, hasher.get_digest()) == (len(data), hash_stream(io.BytesIO(data)))
