"""One stage over a table of clips, in this process and without Ray. `reprise stage` runs it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from curation.config import CurationConfig, compute_config_hash
from curation.dataset.layout import DATA_FOLDER
from curation.dataset.manifest import build_manifest, write_manifest
from curation.dataset.payload import count_payload_bytes
from curation.dataset.row_index import index_tables
from curation.dataset.shards import plan_shards
from curation.models import registry
from curation.rows.lifecycle import is_live
from curation.rows.schema import CLIPS, ClipRow, VideoRow
from curation.rows.stage_names import (
    CAPTION,
    CROP,
    CROSSPAIR,
    FILTER,
    FLOW,
    GROUND,
    INPAINT,
    MATCH,
    REDUX,
    RETRIEVE,
    SEGMENT,
    TRACK,
)
from curation.rows.tables import build_table, check_columns, extract_rows
from curation.runner.dataset_folder import refuse_foreign_shards
from curation.runner.donors import build_donor_table, open_donor_library
from curation.runner.graph import build_stage
from curation.runner.plates import build_plate_pool
from curation.runner.shards import finish_shard
from curation.stages.crosspair import Crosspair
from curation.stages.donors import embed_subjects
from curation.stages.retrieve import FoundDonors, Retrieve
from curation.stages.slice import Slice
from curation.stages.stage import Stage, run_stage
from reprise.errors import InputError, StorageError
from reprise.lock import lock_folder
from reprise.storage import Storage, locate_file, split_parent

_BATCH_ROWS = 16  # rows at a time, and per row group


@dataclass(frozen=True)
class StageNeed:
    """What a stage works on, and the earlier stage that gives it."""

    stage: str
    what: str
    is_met: Callable[[ClipRow], bool]


def _has_box(row: ClipRow) -> bool:
    return any(subject["box"] is not None for subject in row["subjects"])


def _has_measured_mask(row: ClipRow) -> bool:
    return any(subject["scores"].get("area_share") is not None for subject in row["subjects"])


_BOX = StageNeed(GROUND, "a box", _has_box)
_MASK = StageNeed(SEGMENT, "a mask", _has_measured_mask)
_DECISION = StageNeed(FILTER, "a kept subject", lambda row: row["status"] == "kept")
STAGE_NEEDS = {
    MATCH: StageNeed(CAPTION, "a caption", lambda row: bool(row["caption"])),
    GROUND: StageNeed(MATCH, "a subject", lambda row: bool(row["subjects"])),
    TRACK: _BOX,
    SEGMENT: _BOX,
    FLOW: _MASK,
    FILTER: _MASK,
    **dict.fromkeys((CROP, INPAINT, REDUX, CROSSPAIR, RETRIEVE), _DECISION),
}


@dataclass(frozen=True)
class ClipTables:
    """Parquet files of clips."""

    storage: Storage
    files: Sequence[str]  # relative paths

    def read_rows(self) -> Iterator[list[ClipRow]]:
        """Yield the rows of all files, a few at a time.

        Raises:
            StorageError: a file is damaged or is not a table of clips.
        """
        for file in self.files:
            where = self.storage.join_path(file)
            try:
                with self.storage.open_input(file) as stream, pq.ParquetFile(stream) as parquet:
                    check_columns(parquet.schema_arrow, CLIPS, where)
                    for batch in parquet.iter_batches(_BATCH_ROWS, columns=CLIPS.names):
                        yield extract_rows(batch, CLIPS)
            except (pa.ArrowInvalid, OSError) as error:
                message = " ".join(str(error).split())
                raise StorageError(f"{where} is damaged or not Parquet: {message}") from error


@dataclass
class StageOutcome:
    """The counts of the rows of one stage."""

    statuses: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)  # "status: reason" of rows that this stage stopped


def open_clip_tables(source: Storage) -> ClipTables:
    """Find the tables at a place: a Parquet file, or a folder of them.

    Raises:
        StorageError: the place does not exist or has no table.
    """
    if source.is_file():
        folder, file = locate_file(source.uri)
        return ClipTables(folder, [file])
    files = source.list_paths("", ".parquet")
    if not files:
        raise StorageError(f"{source.uri}: no Parquet file there")
    return ClipTables(source, files)


def slice_videos(
    videos: Iterable[VideoRow], config: CurationConfig, folder: Storage
) -> Iterator[list[ClipRow]]:
    """Yield the rows of the clips of some videos. The clips are written below `folder`."""
    stage = Slice(config, folder, compute_config_hash(config, registry.list_model_ids(config)))
    held: list[ClipRow] = []
    for video in videos:
        for row in stage(video):
            held.append(row)
            if len(held) == _BATCH_ROWS:
                yield held
                held = []
    if held:
        yield held


def run_table_stage(name: str, tables: ClipTables, config: CurationConfig) -> Iterator[list[ClipRow]]:
    """Yield the rows of some tables after one stage.

    Raises:
        RepriseError: the stage cannot be built, no backend is configured for a role that it needs, or no live
            row has what an earlier stage gives; this is known after the last row.
    """
    stage: Stage
    if name == CROSSPAIR:
        stage = Crosspair(config, build_plate_pool(tables.storage, [*tables.files], config))
    elif name == RETRIEVE:
        stage = Retrieve(config, _find_donors(tables, config))
    else:
        stage = build_stage(name, config)
    need = STAGE_NEEDS.get(name)
    met = Counter[bool]()
    for rows in tables.read_rows():
        if need is not None:
            met.update(need.is_met(row) for row in rows if is_live(row))
        yield run_stage(stage, rows, {})
    if need is not None and met[False] and not met[True]:
        raise InputError(
            f"no clip in {tables.storage.uri} has {need.what}: run `reprise stage {need.stage}` before {name}"
        )


def write_stage_table(
    name: str, batches: Iterable[list[ClipRow]], folder: Storage, file: str
) -> StageOutcome:
    """Write the rows of a stage to a Parquet file and count them."""
    outcome = StageOutcome()

    def build_tables() -> Iterator[pa.Table]:
        for rows in batches:
            for row in rows:
                row["payload_bytes"] = count_payload_bytes(row)
                outcome.statuses[row["status"]] += 1
                if row["stop"] is not None and row["stop"]["stage"] == name:
                    outcome.stops[f"{row['status']}: {row['stop']['reason']}"] += 1
            yield build_table(rows, CLIPS)

    folder.write_parquet(file, build_tables(), CLIPS)
    return outcome


def write_table_shards(tables: ClipTables, config: CurationConfig, dataset: Storage) -> StageOutcome:
    """Write the shards and the manifest of a dataset whose rows are all decided.

    Raises:
        RepriseError: no table of clips, or a row is open.
    """
    next(tables.read_rows(), None)  # raises if a file is not a table of clips
    entries = index_tables(tables.storage, [*tables.files])
    outcome = StageOutcome(Counter(entry.status for entry in entries))
    if outcome.statuses["open"]:
        raise InputError(
            f"{outcome.statuses['open']} rows of {tables.storage.uri} are open: run the stage filter first"
        )
    # Cross-pairs are in the rows already, so their share adds nothing to the size.
    plans = plan_shards(entries, config.shard.target_mb << 20, 0.0)
    group_rows = config.shard.row_group_rows
    revisions = registry.list_model_ids(config)
    config_hash = compute_config_hash(config, revisions)
    with lock_folder(dataset, create=True) as lock, lock_source(tables.storage, dataset):
        refuse_foreign_shards(dataset)
        results = [finish_shard(dataset, plan, [], group_rows, source=tables.storage) for plan in plans]
        lock.check_held()
        write_manifest(dataset, build_manifest(config, config_hash, revisions, results, {}))
    return outcome


@contextlib.contextmanager
def lock_source(source: Storage, target: Storage) -> Iterator[None]:
    """Keep other runs from changing the dataset that some tables are in, or the folder that they are in.

    Args:
        source: Folder of the tables: a dataset, its folder `data/`, or any other.
        target: A folder that this run has locked already.

    Raises:
        StorageError: Another run is writing there.
    """
    parent, name = split_parent(source.uri)
    root = Storage(parent) if name == DATA_FOLDER else source
    if root == target:
        yield
        return
    with lock_folder(root, shared=True):
        yield


def _find_donors(tables: ClipTables, config: CurationConfig) -> FoundDonors:
    """Find the clips in which the subjects of some tables are seen again.

    Raises:
        RepriseError: no backend is configured for the role `embedder`.
    """
    embedder = registry.load_required_backend(config, "embedder")
    embeddings = [each for rows in tables.read_rows() for each in embed_subjects(rows, embedder)]
    rows = index_tables(tables.storage, [*tables.files])
    donors = build_donor_table(embeddings, rows, registry.get_model_id(embedder), config)
    return open_donor_library(tables.storage, donors)
