"""The files of a dataset's folder beside its rows: the report, and what is stale.

Only what a run has made is removed, since other files may lie beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Set

from curation.config import CurationConfig
from curation.dataset.layout import (
    DATA_FOLDER,
    MANIFEST_FILE,
    REPORT_FOLDER,
    WORK_FOLDER,
    is_clip_path,
    is_report_path,
    is_run_folder,
    is_shard_path,
)
from curation.dataset.manifest import read_manifest
from curation.report.build import write_report
from curation.rows.ids import CLIPS_FOLDER
from reprise.errors import InputError
from reprise.progress import Progress
from reprise.storage import Storage


def remove_dataset(dataset: Storage) -> None:
    """Remove everything that runs have made, and nothing else.

    Raises:
        InputError: The folder holds files, and none is of a dataset.
    """
    if not _holds_dataset(dataset):
        stranger = next(iter(dataset.list_paths()), None)
        if stranger is None:
            return
        raise InputError(
            f"{dataset.uri} holds files and no dataset, such as {stranger}: "
            "--overwrite removes only datasets; name another folder"
        )
    # The manifest goes first: a finished dataset must never name rows that are gone.
    dataset.delete_file(MANIFEST_FILE)
    for file in dataset.list_paths(REPORT_FOLDER):
        if is_report_path(file):
            dataset.delete_file(file)
    _remove_empty_folders(dataset, REPORT_FOLDER)
    _remove_shards_and_clips(dataset, keep=frozenset())
    remove_work(dataset)


def refuse_foreign_shards(dataset: Storage) -> None:
    """Check that `data/` holds no table of something else: whoever loads the folder would read it, too.

    Raises:
        InputError: It does.
    """
    for file in dataset.list_paths(DATA_FOLDER, ".parquet"):
        if not is_shard_path(file) and not file.rpartition("/")[2].startswith("."):
            raise InputError(
                f"{dataset.join_path(file)} is no shard of a dataset, and programs that load "
                f"{DATA_FOLDER}/ would read it with the shards: move it out of {DATA_FOLDER}/"
            )


def list_run_folders(dataset: Storage) -> list[str]:
    """Paths of the folders below `work/` of runs that are under way or were interrupted."""
    return [f"{WORK_FOLDER}/{name}" for name in dataset.list_folders(WORK_FOLDER) if is_run_folder(name)]


def remove_work(dataset: Storage) -> None:
    """Remove what runs keep in `work/` until they end."""
    for folder in list_run_folders(dataset):
        dataset.delete_tree(folder)
    _remove_empty_folders(dataset, WORK_FOLDER)


def remove_stale_files(dataset: Storage, keep: Set[str]) -> None:
    """Remove shards and clips of earlier states of the dataset, and partial files of killed writers.

    Args:
        dataset: The dataset.
        keep: Paths of the shards and clips that it has now.
    """
    _remove_shards_and_clips(dataset, keep)
    for folder in (DATA_FOLDER, CLIPS_FOLDER):
        local = dataset.get_local_path(folder)
        for file in local.rglob(".partial-*") if local else ():
            file.unlink(missing_ok=True)


def publish_report(dataset: Storage, config: CurationConfig, progress: Progress) -> None:
    """Write the report, and then remove `work/`: as long as that exists, the report may be old."""
    progress.begin("report", 1)
    write_report(dataset, clips_per_page=config.report.clips_per_page, max_clips=config.report.max_clips)
    remove_work(dataset)
    progress.advance()
    progress.end()


def remove_stale_shards(dataset: Storage, keep: Set[str]) -> None:
    """Remove the shards that a refilter has replaced, or that a killed one has left."""
    for file in dataset.list_paths(DATA_FOLDER):
        if is_shard_path(file) and file not in keep:
            dataset.delete_file(file)


def _holds_dataset(dataset: Storage) -> bool:
    """Whether anything of a dataset is there, of one that is half removed, too."""
    if (read_manifest(dataset) or {}).get("shards") is not None or list_run_folders(dataset):
        return True
    return any(map(is_shard_path, dataset.list_paths(DATA_FOLDER))) or any(
        map(is_clip_path, dataset.list_paths(CLIPS_FOLDER))
    )


def _remove_empty_folders(dataset: Storage, folder: str) -> None:
    """Remove a folder of a disk, and those in it, where they hold no file. A store has no folders."""
    local = dataset.get_local_path(folder)
    if local is not None and local.is_dir():
        for each in (*sorted(local.rglob("*/"), reverse=True), local):
            with contextlib.suppress(OSError):  # it is not empty
                each.rmdir()


def _remove_shards_and_clips(dataset: Storage, keep: Set[str]) -> None:
    for folder, is_ours in ((DATA_FOLDER, is_shard_path), (CLIPS_FOLDER, is_clip_path)):
        for file in dataset.list_paths(folder):
            if is_ours(file) and file not in keep:
                dataset.delete_file(file)
