"""Records of files: size and digest, by which damage is found.

`b2sum -l 128 FILE` prints the same digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from reprise.digest import hash_stream
from reprise.errors import StorageError, TransientStorageError
from reprise.storage import Storage

RECORDS_FILE = "files.json"  # of a folder without a manifest of its own
_THREADS = 16  # files at a time: on S3 each is a wait for an answer
_BATCH = 1024  # records at a time, so that a million of them take no memory


@dataclass(frozen=True)
class FileRecord:
    """What a file was when it was written."""

    path: str  # relative to its folder
    bytes: int | None = None  # None: not recorded
    blake2b: str | None = None  # BLAKE2b of 128 bits, hexadecimal; None: not recorded

    @classmethod
    def from_file(cls, folder: Storage, path: str) -> FileRecord:
        """Read a file and record it."""
        return cls(path, folder.get_size(path), compute_file_digest(folder, path))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FileRecord:
        """Read a record of a manifest; further keys do not matter."""
        return cls(values["path"], values.get("bytes"), values.get("blake2b"))


@dataclass(frozen=True)
class FileDamage:
    """A file that differs from its record."""

    path: str
    problem: str


@dataclass
class FileCheck:
    """What a check of a folder found."""

    files: int = 0  # files that were checked
    damage: list[FileDamage] = field(default_factory=list)


def check_records(
    folder: Storage, records: Iterable[FileRecord], sizes: Mapping[str, int], *, quick: bool
) -> FileCheck:
    """Compare files with their records: sizes, and the content of those whose size is right unless `quick`.

    Args:
        folder: Where the files are.
        records: What was written; read once, so that there may be millions.
        sizes: Bytes of the files that are there, by path.
        quick: Only look at sizes.
    """
    found = FileCheck()

    def list_sound() -> Iterator[FileRecord]:
        for record in records:
            found.files += 1
            damage = find_size_damage([record], sizes)
            found.damage += damage
            if not damage and not quick:
                yield record

    content = list(check_content(folder, list_sound()))
    found.damage = sorted([*found.damage, *content], key=lambda each: each.path)
    return found


def describe_damage(damage: Sequence[FileDamage]) -> str:
    """Name damaged files in one line: the first three, and how many there are."""
    named = ", ".join(f"{each.path} ({each.problem})" for each in damage[:3])
    return named + (f" and {len(damage) - 3} more" if len(damage) > 3 else "")


def compute_file_digest(folder: Storage, path: str) -> str:
    """Compute the digest of a file in bounded memory.

    Raises:
        StorageError: it cannot be read.
    """
    with folder.open_input(path) as stream:
        try:
            return hash_stream(stream)
        except OSError as error:
            raise StorageError(f"cannot read {folder.join_path(path)}: {error}") from error


def write_folder_records(folder: Storage, paths: Iterable[str]) -> None:
    """Add the records of some files of a folder to its `files.json`."""
    known = {each.path: each for each in read_folder_records(folder)}
    known |= {path: FileRecord.from_file(folder, path) for path in paths}
    records = [asdict(known[path]) for path in sorted(known)]
    folder.write_bytes(RECORDS_FILE, (json.dumps(records, indent=1) + "\n").encode())


def read_folder_records(folder: Storage) -> list[FileRecord]:
    """Read `files.json` of a folder; [] where it is missing or unreadable."""
    if not folder.is_file(RECORDS_FILE):
        return []
    try:
        return [FileRecord.from_dict(each) for each in json.loads(folder.read_bytes(RECORDS_FILE))]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def find_size_damage(records: Iterable[FileRecord], sizes: Mapping[str, int]) -> list[FileDamage]:
    """Find files that are missing or have another size than their record says.

    Args:
        records: What was written.
        sizes: Bytes of the files that are there, by path.
    """
    found = []
    for record in records:
        size = sizes.get(record.path, -1)
        if size < 0:
            found.append(FileDamage(record.path, "missing"))
        elif record.bytes is not None and size != record.bytes:
            found.append(FileDamage(record.path, f"{size} bytes instead of {record.bytes}"))
    return found


def list_file_sizes(folder: Storage, *prefixes: str) -> dict[str, int]:
    """Sizes of the files below some folders, by path; files that cannot be read have -1."""
    return {file.path: file.size for prefix in prefixes for file in folder.list_files(prefix)}


def check_content(folder: Storage, records: Iterable[FileRecord]) -> Iterator[FileDamage]:
    """Read files and yield those whose digest is not that of their record; those without one pass.

    Raises:
        TransientStorageError: the store does not answer, so nothing is known.
    """

    def check_file(record: FileRecord) -> FileDamage | None:
        try:
            found = compute_file_digest(folder, record.path)
        except TransientStorageError:
            raise
        except StorageError as error:
            return FileDamage(record.path, str(error))
        return None if found == record.blake2b else FileDamage(record.path, "its content has changed")

    with ThreadPoolExecutor(_THREADS) as pool:
        left = iter(each for each in records if each.blake2b)
        while part := list(islice(left, _BATCH)):
            yield from filter(None, pool.map(check_file, part))
