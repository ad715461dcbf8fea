"""A run of `reprise encode`: what there is, what is missing, the work, the index and the manifest.

Work is cut into units of some rows. A worker encodes a unit and writes it as one part; parts are what a
killed run leaves, and the next run does what no part has. Nothing here knows Ray: `execute` is how units are
worked on, `here` in this process, `on_ray.execute` on a cluster.
"""

from __future__ import annotations

import io
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from reprise.errors import RepriseError
from training.latents.buckets import Buckets
from training.latents.config import EncodeConfig
from training.latents.encoders import Encoders, Facts, describe, digest_of
from training.latents.prepare import Prepared, prepare
from training.latents.sources.source import Item, Planned, Source, digest
from training.latents.store import (
    DATA,
    EMPTY,
    INDEX_FILE,
    MANIFEST,
    SCHEMA_VERSION,
    Manifest,
    ModelInfo,
    Written,
    finish,
    read_index,
    write_empty,
    write_part,
)
from training.latents.video import Unusable
from training.storage import Folder

STAMP = "encode.json"  # what a folder is being filled with; written before the first part
DROPPED = "dropped.parquet"
_DROPPED = pa.schema([(name, pa.string()) for name in ("sample_id", "key", "reason", "words")])
# Another run may succeed where these stood in the way; all other reasons lie in the item.
_PASSING = ("missing file", "worker died")


@dataclass(frozen=True)
class Job:
    """What a worker must know."""

    source: Source
    facts: Facts
    config: EncodeConfig
    folder: Folder
    fingerprint: str


@dataclass(frozen=True)
class Outcome:
    """What became of one item; `reason` is null where it was encoded."""

    sample_id: str
    key: str
    reason: str | None = None
    words: str = ""


class Progress(Protocol):
    def begin(self, task: str, total: int, done: int = 0) -> None: ...

    def advance(self, by: int = 1, note: str | None = None) -> None: ...

    def end(self) -> None: ...


Unit = tuple[Planned, ...]
Execute = Callable[[Job, Sequence[Unit]], Iterable[Outcome]]


def encode(
    source: Source,
    model: str,
    output: str | Folder,
    config: EncodeConfig,
    execute: Execute,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Bring a folder of latents up to date with a source; returns its manifest.

    Raises:
        RepriseError: the model cannot be used, there is nothing to encode, or the folder holds latents of
            another model or config.
    """
    folder = Folder.at(output) if isinstance(output, str) else output
    facts = describe(model, revision, config)
    buckets_of(facts, config)  # a size that the model cannot take is said before anything is read
    planned = source.plan()
    info = ModelInfo(
        path=model,
        family=facts.family,
        revision=revision,
        vae=digest_of(model, revision, "vae"),
        text_encoder=digest_of(model, revision, "text_encoder", "tokenizer"),
    )
    stamp = _stamp(info, config)
    if overwrite:
        _clear(folder)
    _refuse_stale(folder, stamp)
    done, dropped = _finished(folder)
    todo = [p for p in planned if not p.drop and p.key not in done and p.key not in dropped]
    job = Job(source, facts, config, folder, stamp["fingerprint"])
    if todo:
        folder.write(STAMP, json.dumps(stamp, indent=2).encode())
        total = sum(not p.drop for p in planned)
        outcomes = _work(job, todo, total, execute, progress)
        done = _finished(folder)[0]
        lost = [p for p in todo if p.key not in done and not outcomes[p.key].reason]
        if lost:
            # Each by itself, so that one that kills its worker takes no other along.
            alone = config.model_copy(update={"engine": config.engine.model_copy(update={"part_rows": 1})})
            outcomes |= _work(replace(job, config=alone), lost, total, execute, progress)
            done = _finished(folder)[0]
        for key, outcome in outcomes.items():
            if key not in done:
                died = replace(outcome, reason="worker died", words="its worker died, each time")
                dropped[key] = outcome if outcome.reason else died
    return _finish(job, info, planned, done, dropped)


def here(job: Job, units: Sequence[Unit]) -> Iterator[Outcome]:
    """Work on units in this process."""
    encoders = Encoders(job.facts, job.config)
    for unit in units:
        yield from encode_unit(job, unit, encoders)


def encode_unit(job: Job, unit: Unit, encoders: Encoders) -> Iterator[Outcome]:
    """Encode the items of a unit and write them as one part; yields what became of each.

    Raises:
        RepriseError: the device has too little memory, or the folder cannot be written.
    """
    if not job.folder.exists(EMPTY):
        write_empty(job.folder, encoders.texts([""])[0])
    items = job.source.load([planned.place for planned in unit])
    written: list[Written] = []
    for planned, prepared in zip(unit, _prepared(job, items), strict=True):
        if isinstance(prepared, Unusable):
            yield Outcome(planned.sample_id, planned.key, prepared.reason, prepared.words)
            continue
        try:
            written.append(encode_one(prepared, planned.key, encoders))
            yield Outcome(planned.sample_id, planned.key)
        except Unusable as why:
            yield Outcome(planned.sample_id, planned.key, why.reason, why.words)
        except torch.OutOfMemoryError as error:
            shape = "x".join(str(side) for side in prepared.frames.shape[:3])
            raise RepriseError(
                f"a clip of {shape} does not fit into the memory of {encoders.device}: lower buckets.area or "
                "buckets.frames, set vae_dtype=bf16, or engine.image_batch=1"
            ) from error
    if written:
        write_part(job.folder, written, job.fingerprint)


def encode_one(prepared: Prepared, key: str, encoders: Encoders) -> Written:
    """Pixels and caption -> tensors and the row of the index.

    Raises:
        Unusable: the VAE's answer is not finite.
    """
    video = encoders.video(prepared.frames, f"{key}/video")
    pictures = encoders.pictures(prepared.pictures, [f"{key}/{name}" for name in prepared.names])
    text = encoders.texts([prepared.row["caption"]])[0]
    if not all(bool(tensor.isfinite().all()) for tensor in (video, text, *pictures)):
        raise Unusable("not finite", "the encoders answered with numbers that are not finite")
    return Written({**prepared.row, "key": key, "text_tokens": len(text)}, video, text, pictures)


def buckets_of(facts: Facts, config: EncodeConfig) -> Buckets:
    # Wan 2.2's TI2V is told by its VAE of 48 channels.
    model = "wan2.2-ti2v" if facts.family == "wan" and facts.latents.channels == 48 else facts.family
    return Buckets(config.buckets, facts.grid, model)


def _prepared(job: Job, items: Iterator[Item]) -> Iterator[Prepared | Unusable]:
    """Items decoded ahead of their encoding, in order."""
    buckets, engine = buckets_of(job.facts, job.config), job.config.engine

    def one(item: Item) -> Prepared | Unusable:
        try:
            return prepare(item, buckets, job.config, job.facts.latents.spatial)
        except Unusable as why:
            return why

    with ThreadPoolExecutor(max(1, int(engine.cpus))) as pool:
        coming: deque[Future[Prepared | Unusable]] = deque()
        coming.extend(pool.submit(one, item) for item in islice(items, engine.ahead + 1))
        while coming:
            yield coming.popleft().result()
            coming.extend(pool.submit(one, item) for item in islice(items, 1))


def _work(
    job: Job, todo: Sequence[Planned], total: int, execute: Execute, progress: Progress | None
) -> dict[str, Outcome]:
    """What became of each; of those whose worker died, nothing did."""
    outcomes = {p.key: Outcome(p.sample_id, p.key) for p in todo}
    if progress:
        progress.begin("encode", total, total - len(todo))
    try:
        for outcome in execute(job, units_of(todo, job.config.engine.part_rows)):
            outcomes[outcome.key] = outcome
            if progress:
                progress.advance(1, outcome.words if outcome.reason else None)
    finally:
        if progress:
            progress.end()
    return outcomes


def units_of(planned: Sequence[Planned], rows: int) -> list[Unit]:
    """Rows of one file after another, so that a worker reads few files, and few at a time."""
    units: list[Unit] = []
    current: list[Planned] = []
    for row in planned:
        # Plain videos are files of their own.
        apart = current and row.place[0] != current[0].place[0] and not row.place[0].startswith("[")
        if apart or len(current) == rows:
            units.append(tuple(current))
            current = []
        current.append(row)
    return [*units, tuple(current)] if current else units


def _stamp(info: ModelInfo, config: EncodeConfig) -> dict[str, Any]:
    told = {"schema": SCHEMA_VERSION, "model": info.model_dump(exclude={"path", "revision"})}
    content = config.content()
    return {**told, "config": content, "path": info.path, "fingerprint": digest(told, content)}


def _refuse_stale(folder: Folder, stamp: dict[str, Any]) -> None:
    """A folder is filled with one model and one config: samples of two would never fit together."""
    if not folder.exists(STAMP):
        if folder.exists(MANIFEST) or folder.names():
            raise RepriseError(f"{folder.uri} holds something else than latents: name an empty folder")
        return
    try:
        found = json.loads(folder.read(STAMP))
    except ValueError as error:
        raise RepriseError(f"{folder.join(STAMP)} is no JSON: start over with --overwrite") from error
    if found.get("fingerprint") == stamp["fingerprint"]:
        return
    mend = "name another folder, or start over with --overwrite"
    before, now = found.get("model", {}), stamp["model"]
    for part, words in (("family", "model family"), ("vae", "VAE"), ("text_encoder", "text encoder")):
        if before.get(part) != now[part]:
            old, new = (str(values.get(part))[:12] for values in (before, now))
            raise RepriseError(f"{folder.uri} holds latents of another {words} ({old}, now {new}): {mend}")
    changed = next(_differences(found.get("config", {}), stamp["config"]), "its schema")
    raise RepriseError(f"{folder.uri} was encoded with another config ({changed}): {mend}")


def _differences(before: Any, now: Any, at: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted({*before, *now}):
            yield from _differences(before.get(name), now.get(name), f"{at}.{name}" if at else name)
    elif before != now:
        yield f"{at} {json.dumps(before)}, now {json.dumps(now)}"


def _finished(folder: Folder) -> tuple[dict[str, dict[str, Any]], dict[str, Outcome]]:
    """By key: rows that parts hold, and items that an earlier run found unusable."""
    names = set(folder.names(DATA))
    rows: dict[str, dict[str, Any]] = {}
    if folder.exists(INDEX_FILE):
        known = read_index(folder).to_pylist()
        rows = {row["key"]: row for row in known if row["shard"] in names}
    indexed = {row["shard"] for row in rows.values()}
    shards = {name for name in names if name.endswith(".safetensors")} - indexed
    parts = sorted(f"{DATA}/{_rows_of(shard)}" for shard in shards if _rows_of(shard) in names)
    with ThreadPoolExecutor(8) as pool:  # on S3 each is a wait for an answer
        for table in pool.map(lambda part: read_index(folder, part), parts):
            rows |= {row["key"]: row for row in table.to_pylist()}
    dropped: dict[str, Outcome] = {}
    if folder.exists(DROPPED):
        for row in pq.read_table(pa.BufferReader(folder.read(DROPPED))).to_pylist():
            if row["key"] not in rows and row["reason"] not in _PASSING:
                dropped[row["key"]] = Outcome(row["sample_id"], row["key"], row["reason"], row["words"])
    return rows, dropped


def _finish(
    job: Job,
    info: ModelInfo,
    planned: Sequence[Planned],
    done: dict[str, dict[str, Any]],
    dropped: dict[str, Outcome],
) -> Manifest:
    """Index, ledger and manifest of exactly the rows that the source has now."""
    folder, rows, ledger, seen = job.folder, [], [], set()
    for p in planned:
        if p.drop:
            # Without a key, so that no later run remembers it: the source says it as long as it is so.
            ledger.append(Outcome(p.sample_id, "", p.drop, p.words))
        elif p.sample_id in seen:
            ledger.append(Outcome(p.sample_id, "", "listed twice"))
        elif p.key in done:
            seen.add(p.sample_id)
            rows.append(done[p.key])
        else:
            ledger.append(dropped[p.key])
    if rows:
        used = {row["shard"] for row in rows}
        used |= {_rows_of(shard) for shard in used}
        for name in folder.names(DATA):
            # Parts without a row that still counts, and halves that a killed run left.
            if name not in used:
                folder.delete(f"{DATA}/{name}")
    folder.write(DROPPED, _ledger(ledger))
    sizes = Counter(f"{row['frames']}x{row['height']}x{row['width']}" for row in rows)
    variants = Counter(r["variant"] for row in rows for s in row["subjects"] for r in s["references"])
    manifest = Manifest(
        created_by="reprise encode",
        fingerprint=job.fingerprint,
        model=info,
        latents=job.facts.latents,
        text=job.facts.text,
        dataset=job.source.describe(),
        config=job.config.content(),
        rows_in=len(planned),
        encoded=len(rows),
        dropped=len(ledger),
        reasons=dict(Counter(str(o.reason) for o in ledger).most_common()),
        left_out=sum(len(row["left_out"]) for row in rows),
        references=dict(variants.most_common()),
        buckets=dict(sorted(sizes.items())),
    )
    finish(folder, rows, manifest)
    return manifest


def _rows_of(shard: str) -> str:
    """The file of a part's rows, beside its tensors."""
    return shard.removesuffix(".safetensors") + ".parquet"


def _ledger(outcomes: Sequence[Outcome]) -> bytes:
    rows = [{"sample_id": o.sample_id, "key": o.key, "reason": o.reason, "words": o.words} for o in outcomes]
    memory = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_DROPPED), memory, compression="zstd")
    return memory.getvalue()


def _clear(folder: Folder) -> None:
    for rel in (MANIFEST, STAMP, INDEX_FILE, EMPTY, DROPPED, *(f"{DATA}/{n}" for n in folder.names(DATA))):
        folder.delete(rel)
