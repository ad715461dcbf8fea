"""The folder of an export: whose it is, what is finished, and how it is closed.

.reprise-export/plan.json            whose export is under way: target, settings, dataset
.reprise-export/units/train-00000.json   records of a finished unit
export-files.txt                     paths of all files that the export wrote, one a line
export.json                          written last: without it the export is not finished
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
from reprise.storage import Storage

EXPORT_FILE = "export.json"
FILES_FILE = "export-files.txt"
_WORK = ".reprise-export"
_PLAN_FILE = f"{_WORK}/plan.json"


def read_export(output: Storage) -> dict[str, Any] | None:
    """Read the account of a finished export; None: there is none.

    Raises:
        StorageError: it is not JSON.
    """
    return _read_json(output, EXPORT_FILE)


def check_finished(output: Storage, target: str) -> None:
    """Raise InputError unless a folder holds a finished export for a target."""
    found = read_export(output)
    if found is None:
        raise InputError(f"no finished export at {output.uri}: run the export again")
    if found.get("target") != target:
        raise InputError(f"{output.uri} holds an export for {found.get('target')}, not for {target}")


def open_folder(output: Storage, identity: dict[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """Claim a folder for an export.

    Args:
        output: the folder.
        identity: all that decides what is written.
        overwrite: remove an export that is there.

    Returns:
        The account of this export where it is finished already, else None.

    Raises:
        InputError: the folder holds another export, or files that are of none.
    """
    digest = compute_digest(identity)
    finished, under_way = read_export(output), _read_json(output, _PLAN_FILE)
    known = finished or under_way
    if known is None:
        stranger = next(iter(output.list_paths()), None)
        if stranger is not None:
            raise InputError(
                f"{output.uri} holds files that no export wrote, such as {stranger}: name an empty folder"
            )
    elif not overwrite:
        if known.get("identity") != digest:
            raise InputError(
                f"{output.uri} holds an export with other settings: name another folder, or pass --overwrite"
            )
        if finished is not None:
            output.delete_tree(_WORK)  # a run was killed between the account and this
        return finished
    else:
        remove_export(output)
    _write_json(output, _PLAN_FILE, {"identity": digest})
    return None


def remove_export(output: Storage) -> None:
    """Remove what an export wrote: the files that it lists, and its work. Other files stay."""
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
    """The units that no earlier run wrote."""
    finished = set(output.list_names(f"{_WORK}/units"))
    return [unit for unit in units if _name_unit(unit) not in finished]


def write_unit_result(output: Storage, unit: ExportUnit, result: UnitResult) -> None:
    """Note that a unit is written."""
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
    """Yield the clips that could not be written."""
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
    """Write the list of files and the account of an export, and remove its work."""
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
            f"{output.join_path(f'{_WORK}/units/{_name_unit(unit)}')} is gone: run the same command again"
        )
    return found


def _name_unit(unit: ExportUnit) -> str:
    return f"{unit.split}-{unit.number:06d}.json"


def _read_json(output: Storage, path: str) -> dict[str, Any] | None:
    if not output.is_file(path):
        return None
    try:
        found = json.loads(output.read_bytes(path))
    except ValueError as error:
        raise StorageError(f"{output.join_path(path)} is not JSON; was it edited by hand?") from error
    if not isinstance(found, dict):
        raise StorageError(f"{output.join_path(path)} holds no mapping; was it edited by hand?")
    return found


def _write_json(output: Storage, path: str, value: Any, indent: int | None = None) -> None:
    output.write_bytes(path, (json.dumps(value, ensure_ascii=False, indent=indent) + "\n").encode())
