"""The files of a dataset's folder beside its rows: the report, and what is stale.

Only what a run has made is removed, since other files may lie beside it.
"""

from __future__ import annotations

from collections.abc import Set

from curation.config import CurationConfig
from curation.dataset.layout import (
    DATA_FOLDER,
    MANIFEST_FILE,
    REPORT_FOLDER,
    WORK_FOLDER,
    is_clip_path,
    is_shard_path,
)
from curation.report.build import write_report
from curation.rows.ids import CLIPS_FOLDER
from reprise.progress import Progress
from reprise.storage import Storage


def remove_dataset(dataset: Storage) -> None:
    """Remove everything that runs have made."""
    # The manifest goes first: a finished dataset must never name rows that are gone.
    dataset.delete_file(MANIFEST_FILE)
    _remove_shards_and_clips(dataset, keep=frozenset())
    for folder in (REPORT_FOLDER, WORK_FOLDER):
        dataset.delete_tree(folder)


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
    dataset.delete_tree(WORK_FOLDER)
    progress.advance()
    progress.end()


def remove_stale_shards(dataset: Storage, keep: Set[str]) -> None:
    """Remove the shards that a refilter has replaced, or that a killed one has left."""
    for file in dataset.list_paths(DATA_FOLDER):
        if is_shard_path(file) and file not in keep:
            dataset.delete_file(file)


def _remove_shards_and_clips(dataset: Storage, keep: Set[str]) -> None:
    for folder, is_ours in ((DATA_FOLDER, is_shard_path), (CLIPS_FOLDER, is_clip_path)):
        for file in dataset.list_paths(folder):
            if is_ours(file) and file not in keep:
                dataset.delete_file(file)
