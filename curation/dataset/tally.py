"""Counts over rows: the funnel, the reasons, the balance. Tallies of parts add up to that of the whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from curation.rows.schema import ClipRow
from curation.rows.stage_names import CAPTION, FILTER, GROUND, MATCH, SEGMENT, SHARD, SLICE, STAGES
from curation.rows.verdicts import NO_MASK, NOT_FOUND

_CLIP_STAGES = STAGES[: STAGES.index(SHARD)]  # those that can stop a clip
# Best last. Rows are open in a table that has not been through all stages.
_STATUS_RANK = {"failed": 0, "rejected": 1, "open": 2, "kept": 3}
_COPY_PREFIX = "duplicate of "


@dataclass
class Tally:
    """Counts over rows of `CLIPS`; pictures are not needed."""

    videos: dict[str, str] = field(default_factory=dict)  # source key -> best status of its rows
    sliced: set[str] = field(default_factory=set)  # source keys that gave at least one clip
    video_reasons: Counter[str] = field(default_factory=Counter)
    clips: Counter[str] = field(default_factory=Counter)
    stops: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # stage -> reasons
    candidates: int = 0
    found: int = 0
    segmented: int = 0
    kept: int = 0
    subject_reasons: Counter[str] = field(default_factory=Counter)
    categories: dict[str, dict[str, Any]] = field(default_factory=dict)
    references: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)

    def add_row(self, row: ClipRow) -> None:
        """Count one row."""
        status = row["status"]
        known = self.videos.get(row["source_key"])
        if known is None or _STATUS_RANK[status] > _STATUS_RANK[known]:
            self.videos[row["source_key"]] = status
        self.licenses[row["license"] or "not stated"] += 1
        stop = row["stop"]
        if row["start_frame"] is None:
            reason = stop["reason"] if stop else "unknown"
            # The reason of each copy names its original; here all copies count as one reason.
            self.video_reasons[
                f"{_COPY_PREFIX}another video" if reason.startswith(_COPY_PREFIX) else reason
            ] += 1
            return
        self.sliced.add(row["source_key"])
        self.clips[status] += 1
        if stop is not None:
            self.stops[stop["stage"]][stop["reason"]] += 1
        for subject in row["subjects"]:
            self._add_subject(subject)

    def _add_subject(self, subject: Any) -> None:
        self.candidates += 1
        verdict = subject["verdict"]
        kept = bool(verdict and verdict["kept"])
        category = self.categories.setdefault(
            subject["category"], {"group": subject["group"], "found": 0, "kept": 0}
        )
        if subject["box"] is not None:
            self.found += 1
            category["found"] += 1
        if subject["mask"] is not None and not (verdict and verdict["reason"] == NO_MASK):
            self.segmented += 1
        if kept:
            self.kept += 1
            category["kept"] += 1
            for reference in subject["references"]:
                if reference["kept"]:
                    self.references[reference["variant"]] += 1
        elif verdict:
            self.subject_reasons[verdict["reason"]] += 1

    def merge(self, other: Tally) -> None:
        """Add the counts of another tally to this one."""
        for key, status in other.videos.items():
            known = self.videos.get(key)
            if known is None or _STATUS_RANK[status] > _STATUS_RANK[known]:
                self.videos[key] = status
        self.sliced |= other.sliced
        for name in ("video_reasons", "clips", "subject_reasons", "references", "licenses"):
            getattr(self, name).update(getattr(other, name))
        for stage, reasons in other.stops.items():
            self.stops[stage].update(reasons)
        for name in ("candidates", "found", "segmented", "kept"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for category, counts in other.categories.items():
            mine = self.categories.setdefault(category, {"group": counts["group"], "found": 0, "kept": 0})
            mine["found"] += counts["found"]
            mine["kept"] += counts["kept"]

    def summarize_counts(self) -> dict[str, Any]:
        """Build the counts of `manifest.json`."""
        videos = Counter(self.videos.values())
        return {
            "videos": {
                "in": len(self.videos),
                **{name: videos[name] for name in ("kept", "rejected", "failed")},
            },
            "clips": {
                "in": sum(self.clips.values()),
                **{name: self.clips[name] for name in ("kept", "rejected", "failed")},
            },
            "subjects": {"candidates": self.candidates, "found": self.found, "kept": self.kept},
            "references": dict(sorted(self.references.items())),
            "funnel": self._build_funnel(),
            "reasons": {
                "video": _sort_counter(self.video_reasons),
                "clip": _sort_counter(sum((Counter(each) for each in self.stops.values()), Counter())),
                "subject": _sort_counter(self.subject_reasons),
            },
            "categories": {name: self.categories[name] for name in sorted(self.categories)},
            "licenses": _sort_counter(self.licenses),
        }

    def _build_funnel(self) -> list[dict[str, Any]]:
        funnel = [
            _build_step(SLICE, "video", len(self.videos), len(self.sliced), self.video_reasons),
        ]
        live = sum(self.clips.values())
        for stage in _CLIP_STAGES:
            if stage in (GROUND, SEGMENT, FILTER):
                continue  # counted by subjects, below
            lost = sum(self.stops[stage].values()) if stage in self.stops else 0
            if stage in (SLICE, CAPTION, MATCH) or lost:
                funnel.append(_build_step(stage, "clip", live, live - lost, self.stops.get(stage, Counter())))
            live -= lost
            if stage == MATCH:
                live -= sum(self.stops[GROUND].values()) if GROUND in self.stops else 0
                funnel += self._build_subject_steps()
        return funnel

    def _build_subject_steps(self) -> list[dict[str, Any]]:
        not_found = Counter({NOT_FOUND: self.candidates - self.found})
        unsegmented = Counter({NO_MASK: self.found - self.segmented})
        judged = Counter(
            {name: count for name, count in self.subject_reasons.items() if name not in (NOT_FOUND, NO_MASK)}
        )
        return [
            _build_step(GROUND, "subject", self.candidates, self.found, not_found),
            _build_step(SEGMENT, "subject", self.found, self.segmented, unsegmented),
            _build_step(FILTER, "subject", self.segmented, self.kept, judged),
        ]


def _build_step(stage: str, unit: str, before: int, after: int, reasons: Counter[str]) -> dict[str, Any]:
    return {"stage": stage, "unit": unit, "in": before, "out": after, "reasons": _sort_counter(+reasons)}


def _sort_counter(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def tally_rows(rows: Iterable[ClipRow]) -> Tally:
    """Count all rows."""
    result = Tally()
    for row in rows:
        result.add_row(row)
    return result
