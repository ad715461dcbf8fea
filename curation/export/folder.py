"""Keep the state of an export in its folder: its identity, its finished units and its account.

.reprise-export/plan.json            digest of target, settings and dataset of the unfinished export
.reprise-export/units/train-00000.json   records of a finished unit
export-files.txt                     paths of all files that the export wrote, one per line
export.json                          written last; an export without it is not finished
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from curation.export.plan import ExportUnit, LeftOutClip
from curation.export.target import Record
from curation.export.write import UnitResult
from reprise.digest import compute_digest
from reprise.errors import InputError, StorageError
from reprise.json_files import read_json_object
from reprise.storage import Storage

EXPORT_FILE = "export.json"
FILES_FILE = "export-files.txt"
_WORK = ".reprise-export"
_PLAN_FILE = f"{_WORK}/plan.json"


def read_export(output: Storage) -> dict[str, Any] | None:
    """Read the account of a finished export; None: the folder has no finished export.

    Raises:
        StorageError: the account is not a JSON object.
    """
    return _read_json(output, EXPORT_FILE)


def check_finished(output: Storage, target: str) -> None:
    """Check that a folder holds a finished export for a target.

    Raises:
        InputError: the export is missing, not finished, or for another target.
    """
    found = read_export(output)
    if found is None:
        raise InputError(f"no finished export at {output.uri}: run the export again")
    if found.get("target") != target:
        raise InputError(f"{output.uri} holds an export for {found.get('target')}, not for {target}")


def open_folder(output: Storage, identity: dict[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """Claim a folder for an export.

    Args:
        output: the folder.
        identity: every input that determines the written files.
        overwrite: remove an existing export.

    Returns:
        The account of this export if it is already finished, else None.

    Raises:
        InputError: the folder holds another export, or files that no export wrote.
    """
    digest = compute_digest(identity)
    finished, under_way = read_export(output), _read_json(output, _PLAN_FILE)
    known = finished or under_way
    if known is None:
        foreign_path = next(iter(output.list_paths()), None)
        if foreign_path is not None:
            raise InputError(
                f"{output.uri} holds files of no export, for example {foreign_path}: give an empty folder"
            )
    elif not overwrite:
        if known.get("identity") != digest:
            raise InputError(
                f"{output.uri} holds an export with other settings: give another folder or pass --overwrite"
            )
        if finished is not None:
            output.delete_tree(_WORK)  # a run stopped after it wrote the account and before this line
        return finished
    else:
        remove_export(output)
    _write_json(output, _PLAN_FILE, {"identity": digest})
    return None


def remove_export(output: Storage) -> None:
    """Remove the files that an export lists, and its state. Other files stay."""
    output.delete_file(EXPORT_FILE)
    for path in _list_written_files(output):
        output.delete_file(path)
    output.delete_file(FILES_FILE)
    output.delete_tree(_WORK)


def _list_written_files(output: Storage) -> Iterator[str]:
    if output.is_file(FILES_FILE):
        yield from output.read_bytes(FILES_FILE).decode().splitlines()
    for name in output.list_names(f"{_WORK}/units"):
        yield from (_read_json(output, f"{_WORK}/units/{name}") or {}).get("files", ())


def list_unfinished_units(output: Storage, units: tuple[ExportUnit, ...]) -> list[ExportUnit]:
    """Return the units that no earlier run finished."""
    finished = set(output.list_names(f"{_WORK}/units"))
    return [unit for unit in units if _name_unit(unit) not in finished]


def write_unit_result(output: Storage, unit: ExportUnit, result: UnitResult) -> None:
    """Record the result of a written unit, so that a later run skips it."""
    value = {
        "records": list(result.records),
        "left_out": [asdict(clip) for clip in result.left_out],
        "files": list(result.files),
    }
    _write_json(output, f"{_WORK}/units/{_name_unit(unit)}", value)


def read_records(output: Storage, units: tuple[ExportUnit, ...], split: str) -> Iterator[Record]:
    """Yield the records of a split, in the order of its samples."""
    for unit in units:
        if unit.split == split:
            yield from _read_unit(output, unit)["records"]


def read_left_out(output: Storage, units: tuple[ExportUnit, ...]) -> Iterator[LeftOutClip]:
    """Yield the clips that failed while units were written."""
    for unit in units:
        for clip in _read_unit(output, unit)["left_out"]:
            yield LeftOutClip(**clip)


def close_folder(
    output: Storage,
    units: tuple[ExportUnit, ...],
    index_files: Sequence[str],
    identity: dict[str, Any],
    account: dict[str, Any],
) -> None:
    """Write the list of files and the account of an export, and remove its state."""
    with output.open_output(FILES_FILE) as stream:
        for unit in units:
            for path in _read_unit(output, unit)["files"]:
                stream.write(f"{path}\n".encode())
        stream.write("".join(f"{path}\n" for path in index_files).encode())
    digest = compute_digest(identity)
    _write_json(output, EXPORT_FILE, {"identity": digest, **identity, **account}, indent=1)
    output.delete_tree(_WORK)


def _read_unit(output: Storage, unit: ExportUnit) -> dict[str, Any]:
    found = _read_json(output, f"{_WORK}/units/{_name_unit(unit)}")
    if found is None:
        raise StorageError(
            f"{output.join_path(f'{_WORK}/units/{_name_unit(unit)}')} is missing: run the same command again"
        )
    return found


def _name_unit(unit: ExportUnit) -> str:
    return f"{unit.split}-{unit.number:06d}.json"


def _read_json(output: Storage, path: str) -> dict[str, Any] | None:
    return read_json_object(output, path, "delete the file, or export to another folder")


def _write_json(output: Storage, path: str, value: Any, indent: int | None = None) -> None:
    output.write_bytes(path, (json.dumps(value, ensure_ascii=False, indent=indent) + "\n").encode())
