"""Files of a finished dataset that are missing or not what its manifest and its rows say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from curation.dataset.layout import DATA_FOLDER, MANIFEST_FILE
from curation.dataset.manifest import list_named_shards
from curation.dataset.row_index import RowIndex, read_columns
from curation.rows.ids import CLIPS_FOLDER
from reprise.errors import StorageError
from reprise.file_records import (
    FileCheck,
    FileDamage,
    FileRecord,
    check_records,
    find_size_damage,
    list_file_sizes,
)
from reprise.storage import Storage


def check_dataset(dataset: Storage, manifest: Mapping[str, Any], *, quick: bool) -> FileCheck:
    """Compare the shards and clips of a finished dataset with what was recorded when they were written.

    The clips of a damaged shard are unknown, so they are not checked.

    Args:
        dataset: The dataset.
        manifest: Its manifest.
        quick: Only look at sizes: this lists the folders and reads two columns of each shard.
    """
    sizes = list_file_sizes(dataset, DATA_FOLDER, CLIPS_FOLDER)
    named = set(list_named_shards(manifest))
    records = [FileRecord.from_dict(each) for each in manifest["shards"] if each["path"] in named]
    shards = check_records(dataset, records, sizes, quick=quick)
    damaged = {each.path for each in shards.damage}
    sound = [record.path for record in records if record.path not in damaged]
    # A check of sizes is of files alone: what is to be done with rows of another config is not known there.
    config_hash = None if quick else manifest.get("config_hash")
    clips = check_records(
        dataset, _list_clips(dataset, sound, config_hash, shards.damage), sizes, quick=quick
    )
    found = FileCheck(shards.files + clips.files, sorted([*shards.damage, *clips.damage], key=_get_path))
    if not dataset.is_file(MANIFEST_FILE):
        found.damage.append(FileDamage(MANIFEST_FILE, "missing"))
    return found


def find_damaged_clips(dataset: Storage, entries: Sequence[RowIndex]) -> dict[str, FileDamage]:
    """Find the clips of some rows that are missing or have another size; by path."""
    clips = [FileRecord(each.clip_path, each.clip_bytes) for each in entries if each.clip_path is not None]
    if not clips:
        return {}
    return {each.path: each for each in find_size_damage(clips, list_file_sizes(dataset, CLIPS_FOLDER))}


def _list_clips(
    dataset: Storage, shards: Sequence[str], config_hash: str | None, damage: list[FileDamage]
) -> Iterator[FileRecord]:
    """List the clips of some shards; a shard that cannot be read, or is of another config, is damage."""
    for shard in shards:
        configs = set()
        try:
            columns = ["clip_path", "clip_bytes", "clip_blake2b", "config_hash"]
            for row in read_columns(dataset, shard, columns):
                configs.add(row["config_hash"])
                if row["clip_path"] is not None:
                    yield FileRecord(row["clip_path"], row["clip_bytes"], row["clip_blake2b"])
        except StorageError as error:
            damage.append(FileDamage(shard, str(error)))
        if config_hash is not None and configs - {config_hash}:
            damage.append(FileDamage(shard, "its rows are of another config than manifest.json states"))


def _get_path(damage: FileDamage) -> str:
    return damage.path
