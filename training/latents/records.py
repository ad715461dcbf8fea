"""Size and digest of every file of a folder of latents: `files.parquet`, written before the manifest.

A worker records its part in the metadata of the part's rows, so that no other process reads the tensors
again.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from reprise.digest import hash_stream
from reprise.errors import RepriseError, StorageError
from reprise.file_records import FileCheck, FileDamage, FileRecord, check_records, find_size_damage
from reprise.storage import Storage

FILES_FILE = "files.parquet"
_SCHEMA = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("blake2b", pa.string())])
_BYTES_KEY, _DIGEST_KEY = b"reprise.bytes", b"reprise.blake2b"
_THREADS = 16  # files at a time: on S3 each is a wait for an answer


def record_part(rows: pa.Table, tensors: bytes) -> pa.Table:
    """Put size and digest of a part's tensors into the metadata of the table of its rows."""
    found = {_BYTES_KEY: str(len(tensors)).encode(), _DIGEST_KEY: hash_stream(io.BytesIO(tensors)).encode()}
    return rows.replace_schema_metadata({**(rows.schema.metadata or {}), **found})


def read_part_record(folder: Storage, part: str) -> FileRecord:
    """Read the record of a part: `part` is the path of its tensors. An older part has none."""
    try:
        with folder.open_input(part.removesuffix(".safetensors") + ".parquet") as stream:
            found: Mapping[bytes, bytes] = pq.read_schema(stream).metadata or {}
        return FileRecord(part, int(found[_BYTES_KEY]), found[_DIGEST_KEY].decode())
    except (StorageError, pa.ArrowException, KeyError, ValueError):
        return FileRecord(part)


def write_records(folder: Storage, parts: Iterable[str], others: Iterable[str]) -> None:
    """Write `files.parquet`.

    Args:
        folder: The latents.
        parts: Paths of the parts that count.
        others: Paths of further files; these are small and read whole. Those that do not exist are left out.
    """
    known = _read_records(folder)
    written = folder.stat_file(FILES_FILE).stamp
    stamps = {each.path: each.stamp for each in folder.list_files("data")}
    wanted = sorted(parts)
    # A part that was encoded again has its record beside it alone.
    stale = [part for part in wanted if part not in known or stamps.get(part, written) >= written]
    with ThreadPoolExecutor(_THREADS) as pool:
        fresh = {each.path: each for each in pool.map(lambda part: read_part_record(folder, part), stale)}
    records = [fresh.get(part) or known[part] for part in wanted]
    records += [FileRecord.from_file(folder, path) for path in others if folder.is_file(path)]
    table = pa.Table.from_pylist([asdict(each) for each in records], schema=_SCHEMA)
    folder.write_parquet(FILES_FILE, [table], _SCHEMA)


def find_damaged_parts(folder: Storage) -> set[str]:
    """Find the parts that are missing or have another size than `files.parquet` says; by path."""
    sizes = {each.path: each.size for each in folder.list_files()}
    parts = [each for path, each in _read_records(folder).items() if path.startswith("data/")]
    return {each.path for each in find_size_damage(parts, sizes)}


def check_latent_files(folder: Storage, *, quick: bool) -> FileCheck:
    """Compare the files of finished latents with what was recorded when they were written.

    Args:
        folder: The latents.
        quick: Only look at sizes.
    """
    sizes = {each.path: each.size for each in folder.list_files()}
    records = _read_records(folder)
    found = check_records(folder, records.values(), sizes, quick=quick)
    if not records:
        problem = "missing or unreadable, so no file can be checked; it may be of an older version"
        found.damage.append(FileDamage(FILES_FILE, problem))
    return found


def _read_records(folder: Storage) -> dict[str, FileRecord]:
    if not folder.is_file(FILES_FILE):
        return {}
    try:
        table = folder.read_table(FILES_FILE, _SCHEMA.names)
    except RepriseError:
        return {}
    return {row["path"]: FileRecord.from_dict(row) for row in table.to_pylist()}
