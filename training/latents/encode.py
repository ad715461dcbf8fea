"""A run of `reprise encode`: plan the items, encode those that are missing, write the index and the manifest.

The items are grouped into units of some rows. A worker encodes a unit and writes it as one part. A killed run
leaves its finished parts, and the next run encodes only items that are in no part. This module does not know
Ray: it is given the function that runs the units, `execute_here` or `on_ray.execute_on_ray`.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from reprise.errors import RepriseError, StorageError
from reprise.file_records import describe_damage, find_size_damage
from reprise.json_files import read_json_object
from reprise.lists.folders import MessageCallback
from reprise.lock import lock_folder
from reprise.progress import NoProgress, Progress
from reprise.storage import Storage
from training.latents.buckets import SizeBuckets
from training.latents.config import EncodeConfig
from training.latents.encoders import Encoders, ModelFacts, hash_model_parts, read_model_facts
from training.latents.prepare import PreparedItem, prepare_item
from training.latents.records import (
    FILES_FILE,
    check_latent_files,
    find_damaged_parts,
    read_part_record,
)
from training.latents.sources.source import EncodeItem, PlannedItem, Source, hash_values
from training.latents.store import (
    DATA_FOLDER,
    DROPPED_FILE,
    EMPTY_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    EncodedSample,
    LatentsManifest,
    ModelInfo,
    finish_latents,
    read_index,
    write_empty,
    write_part,
)
from training.latents.video import DroppedItemError
from training.models.build import FAMILIES

STAMP_FILE = "encode.json"  # model and config of the latents in a folder; written before the first part
_DROPPED_SCHEMA = pa.schema([(name, pa.string()) for name in ("sample_id", "key", "reason", "message")])
_PART_PATTERN = re.compile(r"[0-9a-f]{20}\.(safetensors|parquet)")  # as `write_part` names them
# Another run may succeed with these reasons. All other reasons are properties of the item.
_RETRYABLE_REASONS = ("missing file", "worker died")


@dataclass(frozen=True)
class EncodeJob:
    """What a worker needs to encode units."""

    source: Source
    facts: ModelFacts
    config: EncodeConfig
    folder: Storage
    fingerprint: str


@dataclass(frozen=True)
class ItemOutcome:
    """The outcome of one item; `reason` is None if the item was encoded."""

    sample_id: str
    key: str
    reason: str | None = None
    message: str = ""


WorkUnit = tuple[PlannedItem, ...]
ExecuteUnits = Callable[[EncodeJob, Sequence[WorkUnit]], Iterable[ItemOutcome]]


def encode_dataset(
    source: Source,
    model: str,
    folder: Storage,
    config: EncodeConfig,
    execute: ExecuteUnits,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    notify: MessageCallback | None = None,
) -> LatentsManifest:
    """Encode every item of a source that a folder of latents lacks, and write its index and manifest.

    Args:
        source: the items.
        model: diffusers folder or hub id, whose VAE and text encoder encode.
        folder: where the latents are written.
        config: the settings.
        execute: runs units of work and yields the outcome of each item.
        revision: of a hub id.
        overwrite: remove the latents in the folder first.
        progress: receives the number of finished items.
        notify: is called with lines for people about the source.

    Returns:
        The manifest that was written.

    Raises:
        RepriseError: the model cannot be used, the source has no item, or the folder holds latents of another
            model or config.
    """
    progress = progress or NoProgress()
    facts = read_model_facts(model, revision, config)
    make_buckets(facts, config)  # reject a size that the model cannot take before the source is read
    planned = source.plan_items(notify)
    info = ModelInfo(
        path=model,
        family=facts.family,
        revision=revision,
        vae=hash_model_parts(model, revision, "vae"),
        text_encoder=hash_model_parts(model, revision, "text_encoder", "tokenizer"),
    )
    stamp = _make_stamp(info, config)
    job = EncodeJob(source, facts, config, folder, stamp["fingerprint"])
    with lock_folder(folder, create=True) as lock:
        if overwrite and folder.exists(STAMP_FILE):
            _clear_folder(folder)
        else:
            _refuse_stale(folder, stamp)
        done, dropped = _encode_missing_items(job, planned, stamp, execute, progress)
        lock.check_held()
        manifest = _write_results(job, info, planned, done, dropped)
        damage = check_latent_files(folder, quick=True).damage
        if damage:
            raise StorageError(
                f"files of {folder.uri} were damaged during the run: {describe_damage(damage)}; run the same "
                "command again to make them again"
            )
        return manifest


def _encode_missing_items(
    job: EncodeJob,
    planned: Sequence[PlannedItem],
    stamp: dict[str, Any],
    execute: ExecuteUnits,
    progress: Progress,
) -> tuple[dict[str, dict[str, Any]], dict[str, ItemOutcome]]:
    """Encode what no part has yet; return, by key, the rows of all parts and the items that are unusable."""
    folder, config = job.folder, job.config
    done, dropped = _read_finished(folder)
    todo = [p for p in planned if not p.drop and p.key not in done and p.key not in dropped]
    if todo:
        folder.write_bytes(STAMP_FILE, json.dumps(stamp, indent=2).encode())
        total = sum(not p.drop for p in planned)
        outcomes = _run_units(job, todo, total, execute, progress)
        done = _read_finished(folder)[0]
        lost = [p for p in todo if p.key not in done and not outcomes[p.key].reason]
        if lost:
            # One item per unit, so that an item that kills its worker loses no other item.
            single_item_config = config.model_copy(
                update={"engine": config.engine.model_copy(update={"part_rows": 1})}
            )
            outcomes |= _run_units(replace(job, config=single_item_config), lost, total, execute, progress)
            done = _read_finished(folder)[0]
        for key, outcome in outcomes.items():
            if key not in done:
                died = replace(outcome, reason="worker died", message="the worker died in every attempt")
                dropped[key] = outcome if outcome.reason else died
    return done, dropped


def execute_here(job: EncodeJob, units: Sequence[WorkUnit]) -> Iterator[ItemOutcome]:
    """Encode units in this process, one after another."""
    encoders = Encoders(job.facts, job.config)
    for unit in units:
        yield from encode_unit(job, unit, encoders)


def encode_unit(job: EncodeJob, unit: WorkUnit, encoders: Encoders) -> Iterator[ItemOutcome]:
    """Encode the items of a unit and write them as one part; yield the outcome of each item.

    Raises:
        RepriseError: the device has too little memory, or the folder cannot be written.
    """
    if not job.folder.exists(EMPTY_FILE):
        write_empty(job.folder, encoders.encode_texts([""])[0])
    items = job.source.load_items([planned.place for planned in unit])
    written: list[EncodedSample] = []
    for planned, prepared in zip(unit, _prepare_items(job, items), strict=True):
        if isinstance(prepared, DroppedItemError):
            yield ItemOutcome(planned.sample_id, planned.key, prepared.reason, prepared.message)
            continue
        try:
            written.append(encode_item(prepared, planned.key, encoders))
            yield ItemOutcome(planned.sample_id, planned.key)
        except DroppedItemError as why:
            yield ItemOutcome(planned.sample_id, planned.key, why.reason, why.message)
        except torch.OutOfMemoryError as error:
            shape = "x".join(str(side) for side in prepared.frames.shape[:3])
            raise RepriseError(
                f"a clip of {shape} does not fit into the memory of {encoders.device}: lower buckets.area or "
                "buckets.frames, set vae_dtype=bf16, or engine.image_batch=1"
            ) from error
    if written:
        write_part(job.folder, written, job.fingerprint)


def encode_item(prepared: PreparedItem, key: str, encoders: Encoders) -> EncodedSample:
    """Encode the pixels and the caption of an item to tensors and the row of the index.

    Raises:
        DroppedItemError: an encoder returns values that are not finite.
    """
    video = encoders.encode_video(prepared.frames, f"{key}/video")
    pictures = encoders.encode_pictures(prepared.pictures, [f"{key}/{name}" for name in prepared.names])
    text = encoders.encode_texts([prepared.row["caption"]])[0]
    if not all(bool(tensor.isfinite().all()) for tensor in (video, text, *pictures)):
        raise DroppedItemError("not finite", "the encoders returned values that are not finite")
    return EncodedSample({**prepared.row, "key": key, "text_tokens": len(text)}, video, text, pictures)


def make_buckets(facts: ModelFacts, config: EncodeConfig) -> SizeBuckets:
    """Build the buckets of a model and a config.

    Raises:
        RepriseError: the model cannot take a size or a number of frames of the config.
    """
    lengths = FAMILIES[facts.family]().get_clip_lengths(facts.latents.channels)
    return SizeBuckets(config.buckets, facts.grid, lengths)


def _prepare_items(job: EncodeJob, items: Iterator[EncodeItem]) -> Iterator[PreparedItem | DroppedItemError]:
    """Yield items, decoded before they are encoded, in order; an error takes the place of its item."""
    buckets, engine = make_buckets(job.facts, job.config), job.config.engine

    def prepare_one(item: EncodeItem) -> PreparedItem | DroppedItemError:
        try:
            return prepare_item(item, buckets, job.config, job.facts.latents.spatial)
        except DroppedItemError as why:
            return why

    with ThreadPoolExecutor(max(1, int(engine.cpus))) as pool:
        coming: deque[Future[PreparedItem | DroppedItemError]] = deque()
        coming.extend(pool.submit(prepare_one, item) for item in islice(items, engine.ahead + 1))
        while coming:
            yield coming.popleft().result()
            coming.extend(pool.submit(prepare_one, item) for item in islice(items, 1))


def _run_units(
    job: EncodeJob,
    todo: Sequence[PlannedItem],
    total: int,
    execute: ExecuteUnits,
    progress: Progress,
) -> dict[str, ItemOutcome]:
    """Run units and return the outcome by key. An item whose worker died has no reason."""
    outcomes = {p.key: ItemOutcome(p.sample_id, p.key) for p in todo}
    progress.begin("encode", total, total - len(todo))
    try:
        for outcome in execute(job, group_units(todo, job.config.engine.part_rows)):
            outcomes[outcome.key] = outcome
            progress.advance(1, outcome.message if outcome.reason else None)
    finally:
        progress.end()
    return outcomes


def group_units(planned: Sequence[PlannedItem], rows: int) -> list[WorkUnit]:
    """Group items into units of at most `rows` items of one file, so that a worker opens few files."""
    units: list[WorkUnit] = []
    current: list[PlannedItem] = []
    for row in planned:
        # The place of a plain video or a listed pair is JSON, not a file with rows. These share a unit.
        starts_new_file = current and row.place[0] != current[0].place[0] and not row.place[0].startswith("[")
        if starts_new_file or len(current) == rows:
            units.append(tuple(current))
            current = []
        current.append(row)
    return [*units, tuple(current)] if current else units


def _make_stamp(info: ModelInfo, config: EncodeConfig) -> dict[str, Any]:
    fingerprint_fields = {"schema": SCHEMA_VERSION, "model": info.model_dump(exclude={"path", "revision"})}
    content = config.dump_content()
    return {
        **fingerprint_fields,
        "config": content,
        "path": info.path,
        "fingerprint": hash_values(fingerprint_fields, content),
    }


def _refuse_stale(folder: Storage, stamp: dict[str, Any]) -> None:
    """Check that a folder is empty or holds latents of this model and this config.

    Samples of two models or two configs cannot be trained on together.
    """
    found = read_json_object(folder, STAMP_FILE, "start over with --overwrite")
    if found is None:
        foreign_path = next(iter(folder.list_paths()), None)
        if foreign_path is not None:
            raise RepriseError(
                f"{folder.uri} holds files that are not latents, such as {foreign_path}: name an empty folder"
            )
        return
    if found.get("fingerprint") == stamp["fingerprint"]:
        return
    hint = "name another folder, or start over with --overwrite"
    before, now = found.get("model", {}), stamp["model"]
    for part, label in (("family", "model family"), ("vae", "VAE"), ("text_encoder", "text encoder")):
        if before.get(part) != now[part]:
            old, new = (str(values.get(part))[:12] for values in (before, now))
            raise RepriseError(f"{folder.uri} holds latents of another {label} ({old}, now {new}): {hint}")
    changed = next(_list_differences(found.get("config", {}), stamp["config"]), "its schema")
    raise RepriseError(f"{folder.uri} was encoded with another config ({changed}): {hint}")


def _list_differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted({*before, *now}):
            yield from _list_differences(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif before != now:
        yield f"{path} {json.dumps(before)}, now {json.dumps(now)}"


def _read_finished(folder: Storage) -> tuple[dict[str, dict[str, Any]], dict[str, ItemOutcome]]:
    """Read, by key, the rows of finished parts, and the items that an earlier run could not use."""
    sizes = {each.path: each.size for each in folder.list_files(DATA_FOLDER)}
    damaged = find_damaged_parts(folder)
    names = {path.removeprefix(f"{DATA_FOLDER}/") for path in sizes if path not in damaged}
    rows: dict[str, dict[str, Any]] = {}
    if folder.exists(INDEX_FILE):
        known = read_index(folder).to_pylist()
        rows = {row["key"]: row for row in known if row["shard"] in names}
    indexed = {row["shard"] for row in rows.values()}
    shards = {name for name in names if name.endswith(".safetensors")} - indexed
    parts = sorted(
        f"{DATA_FOLDER}/{_get_rows_file(shard)}" for shard in shards if _get_rows_file(shard) in names
    )
    with ThreadPoolExecutor(8) as pool:  # on S3 each read waits for a response
        for table in pool.map(lambda part: _read_part(folder, part, sizes), parts):
            rows |= {row["key"]: row for row in table.to_pylist()}
    dropped: dict[str, ItemOutcome] = {}
    if folder.exists(DROPPED_FILE):
        for row in pq.read_table(pa.BufferReader(folder.read_bytes(DROPPED_FILE))).to_pylist():
            if row["key"] not in rows and row["reason"] not in _RETRYABLE_REASONS:
                message = row.get("message", "")  # version 0.1 named this column otherwise
                dropped[row["key"]] = ItemOutcome(row["sample_id"], row["key"], row["reason"], message)
    return rows, dropped


def _read_part(folder: Storage, rows_file: str, sizes: Mapping[str, int]) -> pa.Table:
    """Read the rows of a part; no row if its tensors have another size than its worker wrote."""
    table = read_index(folder, rows_file)
    record = read_part_record(folder, rows_file.removesuffix(".parquet") + ".safetensors")
    return table.slice(0, 0) if find_size_damage([record], sizes) else table


def _write_results(
    job: EncodeJob,
    info: ModelInfo,
    planned: Sequence[PlannedItem],
    done: dict[str, dict[str, Any]],
    dropped: dict[str, ItemOutcome],
) -> LatentsManifest:
    """Write index, ledger and manifest of the rows that the source has now."""
    folder, rows, ledger, known_ids = job.folder, [], [], set()
    for p in planned:
        if p.drop:
            # Without a key, so that a later run does not reuse the reason: the source reports it each time.
            ledger.append(ItemOutcome(p.sample_id, "", p.drop, p.message))
        elif p.sample_id in known_ids:
            ledger.append(ItemOutcome(p.sample_id, "", "listed twice"))
        elif p.key in done:
            known_ids.add(p.sample_id)
            rows.append(done[p.key])
        else:
            ledger.append(dropped[p.key])
    if rows:
        used = {row["shard"] for row in rows}
        used |= {_get_rows_file(shard) for shard in used}
        for name in folder.list_names(DATA_FOLDER):
            # Parts without a current row, and incomplete parts of a killed run.
            if name not in used and _PART_PATTERN.fullmatch(name):
                folder.delete_file(f"{DATA_FOLDER}/{name}")
    folder.write_bytes(DROPPED_FILE, _encode_ledger(ledger))
    sizes = Counter(f"{row['frames']}x{row['height']}x{row['width']}" for row in rows)
    variants = Counter(r["variant"] for row in rows for s in row["subjects"] for r in s["references"])
    manifest = LatentsManifest(
        created_by="reprise encode",
        fingerprint=job.fingerprint,
        model=info,
        latents=job.facts.latents,
        text=job.facts.text,
        dataset=job.source.describe_source(),
        config=job.config.dump_content(),
        rows_in=len(planned),
        encoded=len(rows),
        dropped=len(ledger),
        reasons=dict(Counter(str(o.reason) for o in ledger).most_common()),
        left_out=sum(len(row["left_out"]) for row in rows),
        references=dict(variants.most_common()),
        buckets=dict(sorted(sizes.items())),
    )
    finish_latents(folder, rows, manifest)
    return manifest


def _get_rows_file(shard: str) -> str:
    """Return the name of the file with the rows of a part. It is beside the file of the tensors."""
    return shard.removesuffix(".safetensors") + ".parquet"


def _encode_ledger(outcomes: Sequence[ItemOutcome]) -> bytes:
    rows = [
        {"sample_id": o.sample_id, "key": o.key, "reason": o.reason, "message": o.message} for o in outcomes
    ]
    memory = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_DROPPED_SCHEMA), memory, compression="zstd")
    return memory.getvalue()


def _clear_folder(folder: Storage) -> None:
    """Remove latents, and no other file. The stamp goes last: without it the folder counts as foreign."""
    parts = [name for name in folder.list_names(DATA_FOLDER) if _PART_PATTERN.fullmatch(name)]
    for rel in (
        MANIFEST_FILE,
        INDEX_FILE,
        EMPTY_FILE,
        DROPPED_FILE,
        FILES_FILE,
        *(f"{DATA_FOLDER}/{name}" for name in parts),
        STAMP_FILE,
    ):
        folder.delete_file(rel)
