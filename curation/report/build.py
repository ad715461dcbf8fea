"""Build the report: a pass over all numbers, a pass over the pictures that are shown, then the page.

On disk, below `DATASET/report/`:
    index.html            the page with its style, scripts and the overview inlined
    data/index.js         one short entry per clip of the gallery, for filtering
    data/text.js          captions and paths, loaded by the first search
    data/clips-00000.js   a few cards with their pictures, loaded when a page shows one of them
They are scripts because a page opened from disk can load scripts but cannot fetch files.
"""

from __future__ import annotations

import heapq
import html
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, Final

from curation.dataset.layout import DATA_FOLDER, MANIFEST_FILE, REPORT_FOLDER, REPORT_PAGE, is_report_path
from curation.dataset.manifest import list_named_shards, read_manifest
from curation.report import cards, survey
from curation.report.advice import suggest_models
from curation.report.rows import read_row_parts
from reprise.digest import compute_digest
from reprise.errors import RepriseError, StorageError
from reprise.storage import Storage

_SCRIPTS: Final = (
    "dom.js",
    "labels.js",
    "charts.js",
    "overview.js",
    "filters.js",
    "card.js",
    "gallery.js",
    "app.js",
)
# The cards of one page of the gallery are in this many files. A filter shows cards of many pages; small files
# then hold few cards that it does not show.
_FILES_PER_PAGE: Final = 4


def build_report(dataset: str | Path, *, clips_per_page: int = 24, max_clips: int | None = 5000) -> Path:
    """Write `DATASET/report/index.html` from the shards and the manifest.

    Every row is counted. The gallery shows all clips up to `max_clips`; with more, an even sample that
    depends only on clip ids. Memory holds one row group at a time, and a short entry per shown clip.

    Args:
        dataset: folder with `data/*.parquet`, `clips/` and, of a finished run, `manifest.json`.
        clips_per_page: cards on one page of the gallery.
        max_clips: clips in the gallery; None: all.

    Returns:
        Path of `index.html`. For a dataset on S3 see `write_report`.

    Raises:
        RepriseError: the folder does not exist, is not a dataset, or has a shard that cannot be read.
    """
    storage = Storage.from_uri(dataset)
    folder = storage.get_local_path()
    if folder is None:
        raise RepriseError(f"{dataset} is not a folder on this machine: give a local folder")
    write_report(storage, clips_per_page=clips_per_page, max_clips=max_clips)
    return folder / REPORT_PAGE


def write_report(storage: Storage, *, clips_per_page: int = 24, max_clips: int | None = 5000) -> str:
    """Write the report of a folder or an S3 prefix (`build_report`); return the address of `index.html`."""
    if clips_per_page < 1 or (max_clips is not None and max_clips < 1):
        raise RepriseError("clips_per_page and max_clips must be at least 1")
    manifest, problem = _read_manifest(storage)
    # Of a finished dataset the shards that count: others may lie beside them after a killed refilter.
    shards = list_named_shards(manifest) or storage.list_paths(DATA_FOLDER, ".parquet")
    if not shards and not storage.is_file(MANIFEST_FILE):
        raise RepriseError(f"{storage.uri} has neither data/*.parquet nor manifest.json: is it a dataset?")

    counted, shown = _count_rows(storage, shards, manifest, max_clips)
    per_file = -(-clips_per_page // _FILES_PER_PAGE)
    stale = {path for path in storage.list_paths(f"{REPORT_FOLDER}/data") if is_report_path(path)}
    stale -= _write_gallery(storage, shards, shown, per_file)

    name = storage.uri.partition("?")[0].rstrip("/").rpartition("/")[2] or storage.uri
    overview = _build_overview(name, manifest, counted)
    overview["problem"] = problem
    overview["gallery"] = {
        "clips": len(shown),
        "of": counted.rows,
        "per_page": clips_per_page,
        "per_file": per_file,
        # Part of the data files' addresses, so that a browser never mixes two builds.
        "build": compute_digest(manifest, counted.rows, sorted(shown), clips_per_page, length=8),
    }
    # The page is written last, so that the previous one finds its files until then.
    storage.write_bytes(REPORT_PAGE, _build_page(name, overview).encode())
    for rel in stale:
        storage.delete_file(rel)
    return storage.join_path(REPORT_PAGE)


def _read_manifest(storage: Storage) -> tuple[dict[str, Any], str | None]:
    """Read the manifest, or an empty one, and a sentence about its problem, if there is one."""
    counted = "The numbers below were counted from the shards."
    try:
        data = read_manifest(storage)
    except StorageError as error:
        return {}, f"{error}. {counted}"
    if data is None:
        return {}, f"There is no manifest.json: this run was not finished. {counted}"
    if data.get("finished") is False:
        return data, "This run was not finished: the report shows what is there so far."
    return data, None


def _count_rows(
    storage: Storage, shards: list[str], manifest: Mapping[str, Any], max_clips: int | None
) -> tuple[survey.Survey, set[tuple[int, int]]]:
    """Survey all rows, and choose the (shard, row) pairs that the gallery shows."""
    counted = survey.Survey(survey.read_thresholds(manifest))
    drawn: list[tuple[int, int, int]] = []  # a heap of negated hashes: the largest hash is on top
    for shard, number, row in read_row_parts(storage, shards, survey.COLUMNS):
        counted.add_row(row)
        ticket = (-int(compute_digest(row.get("clip_id")), 16), shard, number)
        if max_clips is None or len(drawn) < max_clips:
            heapq.heappush(drawn, ticket)
        else:
            heapq.heappushpop(drawn, ticket)
    return counted, {(shard, number) for _, shard, number in drawn}


def _write_gallery(
    storage: Storage, shards: list[str], shown: set[tuple[int, int]], per_file: int
) -> set[str]:
    """Write card files, the index and the search text; return their paths."""
    written: set[str] = set()
    index = _FilterIndex()
    texts: list[str] = []
    batch: list[dict[str, Any]] = []

    def write_script(name: str, value: Any) -> None:
        rel = f"{REPORT_FOLDER}/data/{name}.js"
        storage.write_bytes(rel, _format_script(name, value))
        written.add(rel)

    def flush_batch() -> None:
        if batch:
            write_script(f"clips-{len(written):05d}", batch)
            batch.clear()

    rows = read_row_parts(storage, shards, cards.COLUMNS, shown)
    # Decoding and encoding pictures runs outside the interpreter's lock, so threads are enough.
    for entry, card in _map_in_threads(
        lambda numbered: (cards.build_entry(numbered[2]), cards.build_card(numbered[2])), rows
    ):
        index.add_entry(entry)
        texts.append(entry["text"])
        batch.append(card)
        if len(batch) == per_file:
            flush_batch()
    flush_batch()
    write_script("index", index.build_data())
    write_script("text", texts)
    return written


def _map_in_threads(work: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """Map in threads, in order, with only a few items at a time."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        pending: list[Future[Any]] = []
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * workers:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


class _FilterIndex:
    """The entries for filtering, with numbers instead of names: about 30 bytes a clip."""

    def __init__(self) -> None:
        self.numbers: dict[str, dict[Any, int]] = {"status": {}, "category": {}, "reason": {}}
        self.clips: list[list[Any]] = []

    def _get_number(self, kind: str, word: Any) -> int:
        """Return the position of a name in its list; -1 for None."""
        return -1 if word is None else self.numbers[kind].setdefault(word, len(self.numbers[kind]))

    def add_entry(self, entry: Mapping[str, Any]) -> None:
        subjects = [
            [
                self._get_number("category", (s["category"], s["group"])),
                self._get_number("reason", s["reason"]),
            ]
            for s in entry["subjects"]
        ]
        status, reason = (
            self._get_number("status", entry["status"]),
            self._get_number("reason", entry["reason"]),
        )
        self.clips.append([status, reason, subjects, int(entry["is_clip"])])

    def build_data(self) -> dict[str, Any]:
        return {**{kind: list(names) for kind, names in self.numbers.items()}, "clips": self.clips}


def _build_overview(name: str, manifest: Mapping[str, Any], counted: survey.Survey) -> dict[str, Any]:
    """Build the data of the upper half of the page, from the manifest, else from the counts."""

    def get_value(key: str, otherwise: Any) -> Any:
        return manifest.get(key) or otherwise

    return {
        "name": name,
        "created_at": manifest.get("created_at"),
        "reprise_version": manifest.get("reprise_version"),
        "config": manifest.get("config"),
        "config_hash": manifest.get("config_hash"),
        "versions": manifest.get("versions"),
        "videos": manifest.get("videos"),
        "clips": get_value("clips", dict(counted.clips)),
        "subjects": get_value("subjects", dict(counted.subjects)),
        "references": get_value("references", dict(counted.references)),
        "funnel": get_value("funnel", []),
        "reasons": get_value("reasons", {unit: dict(found) for unit, found in counted.reasons.items()}),
        "categories": get_value("categories", counted.categories),
        "seconds": get_value("seconds", {}),
        "shards": get_value("shards", []),
        "rows": {"all": counted.rows, "clips": counted.clips["in"]},
        "licenses": {license_: dict(found) for license_, found in counted.licenses.items()},
        "kept_seconds": round(counted.kept_seconds, 3),
        "scores": counted.build_score_charts(),
        "thresholds": [vars(threshold) for threshold in counted.thresholds],
        "unmeasured": counted.list_unmeasured(),
        "advice": suggest_models(manifest),
        "lengths": counted.lengths.merge_bins(),
        "motion": counted.motion.merge_bins(),
        "camera_motion": counted.camera_motion.merge_bins(),
    }


def _format_script(name: str, value: Any) -> bytes:
    return f"repriseData({json.dumps(name)}, {_format_json(value)});\n".encode()


def _format_json(value: Any) -> str:
    """Format JSON that is safe in a script element: it cannot close the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _build_page(name: str, overview: Mapping[str, Any]) -> str:
    page = resources.files("curation.report") / "page"

    def read_source(file: str) -> str:
        return (page / file).read_text(encoding="utf-8")

    # One pass over the template, so that inserted text is never taken for a placeholder.
    parts = {
        "title": html.escape(f"{name} · Reprise report"),
        "style": read_source("style.css"),
        "overview": _format_json(overview),
        "scripts": "\n".join(read_source(script) for script in _SCRIPTS),
    }
    template = read_source("index.html")
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        key, _, rest = piece.partition("}}")
        filled += [parts[key], rest]
    return "".join(filled)
