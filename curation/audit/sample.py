"""The subjects to judge: a stratified sample that depends on a seed, and the weights of its subjects.

Half of the sample are kept subjects, half rejected ones, spread evenly over their reasons: a filter that
rejects one subject in a thousand is judged, too. A hash of seed and id ranks the subjects of a stratum, so
the sample does not depend on the order of rows, and a larger one contains every smaller one.

The sample is written to `audit/<seed>-<n>.json`. A person's answers are about pictures and stay valid when
thresholds change: after `reprise refilter` the same subjects, with the same weights, judge the new verdicts.
"""

from __future__ import annotations

import functools
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Final

from curation.audit.questions import Question, build_reference_question, select_questions
from curation.dataset.layout import DATA_FOLDER
from curation.dataset.manifest import list_named_shards, read_manifest
from curation.report.rows import read_row_parts
from curation.rows.ids import CLIPS_FOLDER
from reprise.digest import compute_digest
from reprise.errors import RepriseError
from reprise.storage import Storage

AUDIT_FOLDER: Final = "audit"
FORMAT: Final = "reprise-audit-1"
KEPT: Final = "kept"  # stratum; the others are named by the reason of the rejection

# Cut from the frame itself, so there is nothing to compare. There are questions about crops of other frames,
# because the tracker may have switched to another subject.
_OWN_CROP: Final = "crop0"
_SEGMENT_VARIANT: Final = "segment"  # of the same frame as the crop of its number
# Share of overlap from which the page asks "a subject of its own?"; ours, far below the thresholds
# that reject (0.8 and 0.9).
_MIN_OVERLAP: Final = 0.1
_COLUMNS: Final = (
    "subjects.subject_id",
    "subjects.category",
    "subjects.group",
    "subjects.frame_index",
    "subjects.box",
    "subjects.mask.size",
    "subjects.scores.area_share",
    "subjects.scores.overlap_iou",
    "subjects.scores.overlap_containment",
    "subjects.verdict",
    "subjects.references.reference_id",
    "subjects.references.variant",
    "subjects.references.kept",
    "subjects.references.reason",
)


@dataclass(frozen=True)
class GeneratedPicture:
    """A picture that was made from a subject, or a crop of it from another frame."""

    name: str  # its id without the subject's: `redux0`
    variant: str
    kept: bool
    reason: str | None


@dataclass(frozen=True)
class AuditItem:
    """A subject of the sample, with the values that sampling, questions and statistics need."""

    subject_id: str
    shard: str  # path below the dataset
    row: int  # of the shard
    category: str
    kept: bool
    reason: str | None
    failures: tuple[str, ...]
    questions: tuple[Question, ...]  # about the subject
    generated: tuple[GeneratedPicture, ...]
    stratum: str = ""  # when the sample was drawn

    @property
    def reference_questions(self) -> tuple[Question, ...]:
        """One question for each generated picture."""
        return tuple(build_reference_question(each.name) for each in self.generated)

    @property
    def all_questions(self) -> tuple[Question, ...]:
        """The questions about the subject, then those about its generated pictures."""
        return self.questions + self.reference_questions


@dataclass(frozen=True)
class Stratum:
    """Kept subjects, or those rejected for one reason."""

    population: int  # subjects of the dataset
    drawn: int


@dataclass(frozen=True)
class AuditSample:
    """The subjects to judge, in the order in which they are shown."""

    seed: int
    n: int  # the requested number; a small dataset has fewer
    items: tuple[AuditItem, ...]
    strata: Mapping[str, Stratum]

    @property
    def name(self) -> str:
        """Name of the files of this sample."""
        return f"{self.seed}-{self.n}"

    @functools.cached_property
    def by_id(self) -> Mapping[str, AuditItem]:
        """The items by `subject_id`."""
        return {item.subject_id: item for item in self.items}


def allocate_places(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """Share `n` places evenly among strata of these sizes; no stratum gets more places than it has subjects.

    Places that small strata leave go to the others, and a remainder to the larger strata. With a larger `n`
    no stratum loses a place.
    """
    places = dict.fromkeys(sizes, 0)
    order = sorted(sizes, key=lambda name: (-sizes[name], name))
    left = min(n, sum(sizes.values()))
    while left:
        open_ = [name for name in order if places[name] < sizes[name]]
        step = max(1, min(left // len(open_), min(sizes[name] - places[name] for name in open_)))
        for name in open_[: left // step]:
            places[name] += step
            left -= step
    return places


def split_places(kept: int, rejected: int, n: int) -> tuple[int, int]:
    """Return the places for kept and for rejected subjects: half each, unless one side has fewer."""
    shares = allocate_places({"kept": kept, "rejected": rejected}, n)
    return shares["kept"], shares["rejected"]


def draw_sample(subjects: Iterable[AuditItem], n: int, seed: int) -> AuditSample:
    """Draw up to `n` subjects, holding at most `n` per stratum in memory."""
    heaps: dict[str, list[tuple[int, str, AuditItem]]] = {}
    population: Counter[str] = Counter()
    for item in subjects:
        name = KEPT if item.kept else item.reason or "rejected"
        population[name] += 1
        heap = heaps.setdefault(name, [])
        ticket = (-int(compute_digest("audit", seed, item.subject_id), 16), item.subject_id, item)
        if len(heap) < n:
            heapq.heappush(heap, ticket)
        elif ticket[:2] > heap[0][:2]:
            heapq.heapreplace(heap, ticket)
    rejected = {name: count for name, count in population.items() if name != KEPT}
    of_kept, of_rejected = split_places(population[KEPT], sum(rejected.values()), n)
    places = {**allocate_places(rejected, of_rejected), **({KEPT: of_kept} if of_kept else {})}
    items = [
        replace(item, stratum=name)
        for name, count in places.items()
        for _, _, item in sorted(heaps[name], key=lambda ticket: ticket[:2], reverse=True)[:count]
    ]
    # The order must not reveal the strata.
    items.sort(key=lambda item: compute_digest("order", seed, item.subject_id))
    strata = {name: Stratum(population[name], places.get(name, 0)) for name in sorted(population)}
    return AuditSample(seed, n, tuple(items), strata)


def scan_subjects(
    storage: Storage, shards: Sequence[str], wanted: Set[tuple[int, int]] | None = None
) -> Iterator[AuditItem]:
    """Yield every subject that has a verdict, without its pictures.

    Args:
        storage: the dataset.
        shards: paths of its shards.
        wanted: only rows with these (shard number, row number); None: all.
    """
    for shard, row_number, row in read_row_parts(storage, shards, _COLUMNS, wanted):
        for subject in row.get("subjects") or []:
            if subject.get("verdict") and subject["verdict"].get("kept") is not None:
                yield _build_item(subject, row["subjects"], shards[shard], row_number)


def _build_item(
    subject: Mapping[str, Any], neighbours: Sequence[Mapping[str, Any]], shard: str, row: int
) -> AuditItem:
    verdict, scores = subject["verdict"], subject.get("scores") or {}
    mask = subject.get("mask")
    overlap = max(scores.get("overlap_iou") or 0.0, scores.get("overlap_containment") or 0.0)
    subject_id = subject["subject_id"]
    return AuditItem(
        subject_id=subject_id,
        shard=shard,
        row=row,
        category=subject.get("category") or "",
        kept=bool(verdict["kept"]),
        reason=verdict.get("reason"),
        failures=tuple(verdict.get("failures") or ([verdict["reason"]] if verdict.get("reason") else [])),
        questions=tuple(
            select_questions(
                box=subject.get("box") is not None,
                mask=mask is not None and mask.get("size") is not None and scores.get("area_share") != 0,
                overlaps=overlap >= _MIN_OVERLAP and find_larger_neighbour(neighbours, subject) is not None,
                human=subject.get("group") == "human",
            )
        ),
        generated=tuple(
            GeneratedPicture(
                name=reference["reference_id"].removeprefix(f"{subject_id}-"),
                variant=reference["variant"],
                kept=reference.get("kept") is not False,  # absent or null: not decided, so not rejected
                reason=reference.get("reason"),
            )
            for reference in subject.get("references") or []
            if reference.get("variant") != _SEGMENT_VARIANT
            and not reference["reference_id"].endswith(f"-{_OWN_CROP}")
        ),
    )


def find_larger_neighbour(
    subjects: Sequence[Mapping[str, Any]], subject: Mapping[str, Any]
) -> list[float] | None:
    """Return the box of the larger subject of the frame that overlaps this one most; None: there is none."""
    box = subject.get("box")
    others = [
        other["box"]
        for other in subjects
        if other.get("box")
        and other.get("frame_index") == subject.get("frame_index")
        and other.get("subject_id") != subject.get("subject_id")
    ]
    shared = (
        [(_get_intersection(box, other), other) for other in others if _get_area(other) >= _get_area(box)]
        if box
        else []
    )
    best = max(shared, key=lambda pair: pair[0], default=(0.0, None))
    return best[1] if best[0] > 0 else None


def _get_area(box: Any) -> float:
    return float(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))


def _get_intersection(left: Any, right: Any) -> float:
    """Area of the intersection of two boxes, px."""
    corners = [max(left[0], right[0]), max(left[1], right[1]), min(left[2], right[2]), min(left[3], right[3])]
    return _get_area(corners)


def open_sample(storage: Storage, n: int, seed: int) -> AuditSample:
    """Open the sample of `n` subjects and this seed; draw and write it if there is none yet.

    Raises:
        RepriseError: there is no dataset, it is unfinished, it has nothing to judge, or it no longer has the
            drawn subjects.
    """
    shards = _list_shards(storage)
    name = f"{AUDIT_FOLDER}/{seed}-{n}.json"
    if storage.is_file(name):
        return _reopen_sample(storage, name, shards, n, seed)
    sample = draw_sample(scan_subjects(storage, shards), n, seed)
    if not sample.items:
        raise RepriseError(f"{storage.uri} has no subject with a verdict: nothing to judge")
    frozen = {
        "format": FORMAT,
        "seed": seed,
        "n": n,
        "strata": {k: {"population": v.population, "drawn": v.drawn} for k, v in sample.strata.items()},
        "items": [
            {"subject_id": i.subject_id, "stratum": i.stratum, "shard": i.shard, "row": i.row}
            for i in sample.items
        ],
    }
    storage.write_bytes(name, (json.dumps(frozen, indent=1) + "\n").encode())
    return sample


def _list_shards(storage: Storage) -> list[str]:
    """Paths of the shards that a finished dataset's manifest names."""
    if not storage.exists():
        raise RepriseError(f"no dataset at {storage.uri}")
    manifest = read_manifest(storage)
    if manifest is None:
        unfinished = bool(storage.list_paths(DATA_FOLDER, ".parquet") or storage.list_paths(CLIPS_FOLDER))
        raise RepriseError(
            f"{storage.uri} is not finished: run the same reprise curate command again to complete it"
            if unfinished
            else f"{storage.uri} has no manifest.json: is it a dataset?"
        )
    if manifest.get("finished") is False:
        raise RepriseError(f"{storage.uri} is not finished: run the same reprise curate command again")
    shards = list_named_shards(manifest)
    if not shards:
        raise RepriseError(f"{storage.uri} has no shard: nothing to judge")
    return shards


def _reopen_sample(storage: Storage, name: str, shards: Sequence[str], n: int, seed: int) -> AuditSample:
    """A sample drawn before, with the current verdicts."""
    try:
        frozen = json.loads(storage.read_bytes(name))
        if frozen["format"] != FORMAT:
            raise ValueError(frozen["format"])
        strata = {k: Stratum(int(v["population"]), int(v["drawn"])) for k, v in frozen["strata"].items()}
        drawn = {
            str(i["subject_id"]): (str(i["stratum"]), i["shard"], int(i["row"])) for i in frozen["items"]
        }
        if any(not strata[stratum].drawn for stratum, _, _ in drawn.values()):
            raise ValueError("a stratum without places")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RepriseError(
            f"{storage.join_path(name)} is damaged: move it away, or choose another --seed"
        ) from error
    numbers = {path: number for number, path in enumerate(shards)}
    places = {(numbers[shard], row) for _, shard, row in drawn.values() if shard in numbers}
    found = {i.subject_id: i for i in scan_subjects(storage, shards, places) if i.subject_id in drawn}
    if len(found) < len(drawn):  # the rows moved: read all shards
        found = {i.subject_id: i for i in scan_subjects(storage, shards) if i.subject_id in drawn}
    if len(found) < len(drawn):
        raise RepriseError(
            f"{len(drawn) - len(found)} of the {len(drawn)} drawn subjects are no longer in {storage.uri}: "
            "it was curated again; choose another --seed"
        )
    items = tuple(replace(found[each], stratum=drawn[each][0]) for each in drawn)
    return AuditSample(seed, n, items, strata)
