"""Files of a training run that are missing or not what was recorded when they were written."""

from __future__ import annotations

from dataclasses import replace

from reprise.file_records import (
    FileCheck,
    FileDamage,
    FileRecord,
    check_records,
    list_file_sizes,
    read_folder_records,
)
from reprise.storage import Storage
from training.loop.run_folder import COMPLETE_MARKER, RunFolder

_RESULTS = ("model", "lora")  # folders that a finished run writes


def check_run_files(folder: Storage, *, quick: bool) -> FileCheck:
    """Compare the complete checkpoints and the exported weights of a run with their records.

    Args:
        folder: The folder of a run, or an exported folder with `files.json`.
        quick: Only look at sizes. Checkpoints on S3 have no digests, so only their sizes are known.
    """
    run = RunFolder(folder)
    records = list(read_folder_records(folder))
    unreadable = []
    for step in run.list_complete_steps():
        place = run.get_checkpoint_path(step)
        try:
            files = [FileRecord.from_dict(each) for each in run.read_facts(step).get("files", [])]
        except (ValueError, TypeError, KeyError, AttributeError):
            unreadable.append(FileDamage(f"{place}/{COMPLETE_MARKER}", "cannot be read"))
            continue
        records += [replace(each, path=f"{place}/{each.path}") for each in files]
    for name in _RESULTS:
        found = read_folder_records(folder.get_subfolder(name))
        records += [replace(each, path=f"{name}/{each.path}") for each in found]
    sizes = list_file_sizes(folder, "")
    check = check_records(folder, records, sizes, quick=quick)
    check.damage = [*unreadable, *check.damage]
    return check
