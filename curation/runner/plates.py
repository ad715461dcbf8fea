"""The pool of plates: pictures of unrelated clips that cross-pairs are composited with."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from curation.config import CurationConfig
from curation.dataset.row_index import RowIndex, index_tables
from curation.dataset.shards import read_rows
from curation.models import registry
from curation.runner.job import CurationJob
from curation.runner.memory import release_free_memory
from curation.runner.worker import get_cached, init_worker
from curation.stages.plates import Plate, choose_plate_clips, collect_plates
from reprise.storage import Storage

_READ_ROWS = 16  # clips at a time


def select_plate_rows(entries: Iterable[RowIndex], config: CurationConfig) -> list[RowIndex]:
    """Select the rows of the clips that give plates; none if no cross-pairs are wanted."""
    if config.crosspair.share == 0:
        return []
    with_frames = {entry.clip_id: entry for entry in entries if entry.payload_bytes > 0}
    chosen = choose_plate_clips(with_frames, config.crosspair.pool, config.seed)
    return [with_frames[clip_id] for clip_id in sorted(chosen)]


def build_plate_pool(storage: Storage, files: Sequence[str], config: CurationConfig) -> list[Plate]:
    """Make the plates of the clips in some tables, in this process.

    Raises:
        RepriseError: A file is no clip table, or no backend is configured for the role `inpainter`.
    """
    entries = select_plate_rows(index_tables(storage, files), config) if config.crosspair.share else []
    if not entries:
        return []
    inpainter = registry.load_required_backend(config, "inpainter")
    rows = read_rows(storage, sorted(entries, key=lambda each: each.sort_key), _READ_ROWS)
    clips = config.crosspair.clips
    return [plate for batch in rows for plate in collect_plates(batch, inpainter, config.seed, clips)]


def make_plate_group(job: CurationJob, entries: Sequence[RowIndex]) -> tuple[list[Plate], float]:
    """Make the plates of some rows in a worker; returns the seconds that it took, too."""
    init_worker(job)
    started = time.perf_counter()
    config = job.config
    inpainter = get_cached(
        ("inpainter", job.config_hash), lambda: registry.load_required_backend(config, "inpainter")
    )
    plates = [
        _share_plate_image(plate)
        for rows in read_rows(job.dataset, entries, 1)
        for plate in collect_plates(rows, inpainter, config.seed, config.crosspair.clips)
    ]
    release_free_memory()
    return plates, time.perf_counter() - started


def _share_plate_image(plate: Plate) -> Plate:
    """Turn the picture into an Arrow buffer, which all processes of a machine read from shared memory.

    Bytes would be copied into each process.
    """
    data: Any = pa.py_buffer(plate.image["bytes"] or b"")
    return replace(plate, image={"bytes": data, "path": None})
