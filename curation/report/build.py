"""Build the report: a pass over all numbers, a pass over the pictures that are shown, then the page.

On disk, below `DATASET/report/`:
    index.html            the page with its style, scripts and the overview inlined
    data/index.js         one short entry per clip of the gallery: what filtering needs
    data/text.js          captions and paths, loaded by the first search
    data/clips-00000.js   a few cards with their pictures, loaded when a page shows one of them
They are scripts because a page opened from disk may load scripts but not fetch files.
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

from curation.report import cards, survey
from curation.report.rows import read_rows
from curation.rows.ids import digest
from reprise.errors import RepriseError
from reprise.storage import Storage

_SCRIPTS: Final = (
    "dom.js",
    "words.js",
    "charts.js",
    "overview.js",
    "filters.js",
    "card.js",
    "gallery.js",
    "app.js",
)
# A page of the gallery is spread over this many files, so that a filter that picks a clip here and there
# loads little beside what it shows.
_FILES_PER_PAGE: Final = 4


def build_report(dataset: str | Path, *, clips_per_page: int = 24, max_clips: int | None = 5000) -> Path:
    """Write `DATASET/report/index.html` from the shards and the manifest.

    Every row is counted; the gallery shows all clips up to `max_clips`, beyond that an even draw that depends
    on clip ids alone. Memory holds one row group at a time, beside a short entry per clip shown.

    Args:
        dataset: folder with `data/*.parquet`, `clips/` and, of a finished run, `manifest.json`.
        clips_per_page: cards on one page of the gallery.
        max_clips: None: all.

    Returns:
        Path of `index.html`. For a dataset on S3 see `write_report`.

    Raises:
        RepriseError: no such folder, nothing in it to report on, or a shard that cannot be read.
    """
    storage = Storage.at(dataset)
    folder = storage.local()
    if folder is None:
        raise RepriseError(f"{dataset} is no folder of this machine")
    write_report(storage, clips_per_page=clips_per_page, max_clips=max_clips)
    return folder / "report" / "index.html"


def write_report(storage: Storage, *, clips_per_page: int = 24, max_clips: int | None = 5000) -> str:
    """`build_report` for a folder or an S3 prefix; returns the address of `index.html`."""
    if clips_per_page < 1 or (max_clips is not None and max_clips < 1):
        raise RepriseError("clips_per_page and max_clips must be at least 1")
    manifest, problem = _read_manifest(storage)
    shards = storage.list("data", ".parquet")
    if not shards and not manifest:
        raise RepriseError(f"{storage.uri} has neither data/*.parquet nor manifest.json: is it a dataset?")

    counted, shown = _count(storage, shards, manifest, max_clips)
    per_file = -(-clips_per_page // _FILES_PER_PAGE)
    stale = set(storage.list("report/data"))
    stale -= _write_gallery(storage, shards, shown, per_file)

    name = storage.uri.partition("?")[0].rstrip("/").rpartition("/")[2] or storage.uri
    overview = _overview(name, manifest, counted)
    overview["problem"] = problem
    overview["gallery"] = {
        "clips": len(shown),
        "of": counted.rows,
        "per_page": clips_per_page,
        "per_file": per_file,
        # Appended to the addresses of the data files, so that a browser never mixes two builds.
        "build": digest(manifest, counted.rows, sorted(shown), clips_per_page, length=8),
    }
    # The page last: until it is there, the previous one still finds its own files.
    storage.write_bytes("report/index.html", _page(name, overview).encode())
    for rel in stale:
        storage.delete(rel)
    return storage.join("report/index.html")


def _read_manifest(storage: Storage) -> tuple[dict[str, Any], str | None]:
    """The manifest, or an empty one and a sentence that says why."""
    counted = "The numbers below were counted from the shards."
    if not storage.is_file("manifest.json"):
        return {}, f"There is no manifest.json: this run was not finished. {counted}"
    try:
        data = json.loads(storage.read_bytes("manifest.json"))
    except ValueError:
        return {}, f"manifest.json is not readable as JSON. {counted}"
    if not isinstance(data, dict):
        return {}, f"manifest.json holds no object. {counted}"
    if data.get("finished") is False:
        return data, "This run was not finished: the report shows what is there so far."
    return data, None


def _count(
    storage: Storage, shards: list[str], manifest: Mapping[str, Any], max_clips: int | None
) -> tuple[survey.Survey, set[tuple[int, int]]]:
    """Survey over all rows, and the (shard, row) pairs that the gallery shows."""
    counted = survey.Survey(survey.read_thresholds(manifest))
    drawn: list[tuple[int, int, int]] = []  # a heap of negated draws: the one to give up is on top
    for shard, number, row in read_rows(storage, shards, survey.COLUMNS):
        counted.add(row)
        ticket = (-int(digest(row.get("clip_id")), 16), shard, number)
        if max_clips is None or len(drawn) < max_clips:
            heapq.heappush(drawn, ticket)
        else:
            heapq.heappushpop(drawn, ticket)
    return counted, {(shard, number) for _, shard, number in drawn}


def _write_gallery(
    storage: Storage, shards: list[str], shown: set[tuple[int, int]], per_file: int
) -> set[str]:
    """Write card files, the index and the search text; returns the paths written."""
    written: set[str] = set()
    index = _Index()
    texts: list[str] = []
    batch: list[dict[str, Any]] = []

    def write(name: str, value: Any) -> None:
        rel = f"report/data/{name}.js"
        storage.write_bytes(rel, _script(name, value))
        written.add(rel)

    def flush() -> None:
        if batch:
            write(f"clips-{len(written):05d}", batch)
            batch.clear()

    rows = read_rows(storage, shards, cards.COLUMNS, shown)
    # Decoding and encoding pictures runs outside the interpreter's lock, so threads are enough.
    for entry, card in _in_threads(
        lambda numbered: (cards.entry(numbered[2]), cards.card(numbered[2])), rows
    ):
        index.add(entry)
        texts.append(entry["text"])
        batch.append(card)
        if len(batch) == per_file:
            flush()
    flush()
    write("index", index.data())
    write("text", texts)
    return written


def _in_threads(work: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """`map` in threads, in order, with only a few items in flight."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        pending: list[Future[Any]] = []
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * workers:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


class _Index:
    """Filter entries of all clips, words replaced by numbers: about 30 bytes a clip."""

    def __init__(self) -> None:
        self.words: dict[str, dict[Any, int]] = {"status": {}, "category": {}, "reason": {}}
        self.clips: list[list[Any]] = []

    def _number(self, kind: str, word: Any) -> int:
        """Position of a word in its list; -1 for none."""
        return -1 if word is None else self.words[kind].setdefault(word, len(self.words[kind]))

    def add(self, entry: Mapping[str, Any]) -> None:
        subjects = [
            [self._number("category", (s["category"], s["group"])), self._number("reason", s["reason"])]
            for s in entry["subjects"]
        ]
        status, reason = self._number("status", entry["status"]), self._number("reason", entry["reason"])
        self.clips.append([status, reason, subjects, int(entry["is_clip"])])

    def data(self) -> dict[str, Any]:
        return {**{kind: list(words) for kind, words in self.words.items()}, "clips": self.clips}


def _overview(name: str, manifest: Mapping[str, Any], counted: survey.Survey) -> dict[str, Any]:
    """What the upper half of the page draws: the manifest's numbers where it has them, else the counted."""

    def given(key: str, otherwise: Any) -> Any:
        return manifest.get(key) or otherwise

    return {
        "name": name,
        "created_at": manifest.get("created_at"),
        "reprise_version": manifest.get("reprise_version"),
        "config": manifest.get("config"),
        "config_hash": manifest.get("config_hash"),
        "versions": manifest.get("versions"),
        "videos": manifest.get("videos"),
        "clips": given("clips", dict(counted.clips)),
        "subjects": given("subjects", dict(counted.subjects)),
        "references": given("references", dict(counted.references)),
        "funnel": given("funnel", []),
        "reasons": given("reasons", {unit: dict(found) for unit, found in counted.reasons.items()}),
        "categories": given("categories", counted.categories),
        "seconds": given("seconds", {}),
        "shards": given("shards", []),
        "rows": {"all": counted.rows, "clips": counted.clips["in"]},
        "licenses": {license_: dict(found) for license_, found in counted.licenses.items()},
        "kept_seconds": round(counted.kept_seconds, 3),
        "scores": counted.score_charts(),
        "thresholds": [vars(threshold) for threshold in counted.thresholds],
        "unmeasured": counted.unmeasured(),
        "lengths": counted.lengths.finish(),
        "motion": counted.motion.finish(),
        "camera_motion": counted.camera_motion.finish(),
    }


def _script(name: str, value: Any) -> bytes:
    return f"repriseData({json.dumps(name)}, {_json(value)});\n".encode()


def _json(value: Any) -> str:
    """JSON that is safe inside a script element: nothing in it can close the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _page(name: str, overview: Mapping[str, Any]) -> str:
    page = resources.files("curation.report") / "page"

    def source(file: str) -> str:
        return (page / file).read_text(encoding="utf-8")

    # One pass over the template: text that was put in is not looked at again.
    parts = {
        "title": html.escape(f"{name} · Reprise report"),
        "style": source("style.css"),
        "overview": _json(overview),
        "scripts": "\n".join(source(script) for script in _SCRIPTS),
    }
    template = source("index.html")
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        key, _, rest = piece.partition("}}")
        filled += [parts[key], rest]
    return "".join(filled)
