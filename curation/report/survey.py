"""Counts and histograms over all rows of a dataset, filled one row at a time in constant memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from curation.rows.schema import Scores

Row = Mapping[str, Any]

# Parts of a row that the survey reads: numbers and short names, no pictures.
COLUMNS: Final = (
    "clip_id",
    "clip_index",
    "status",
    "stop",
    "license",
    "start_frame",
    "start_s",
    "end_s",
    "motion",
    "camera_motion",
    "subjects.category",
    "subjects.group",
    "subjects.frame_index",
    "subjects.scores",
    "subjects.verdict",
    "subjects.references.variant",
    "subjects.references.kept",
)

# Series of a histogram of subjects.
KEPT, MISSED_ELSEWHERE, MISSED_HERE = range(3)

MAX_BINS: Final = 32
_LOG_FLOOR: Final = 0.1
_BIN_FACTORS: Final = (1, 2, 5)


@dataclass
class Histogram:
    """Counts in bins of a fine fixed step, merged into a few round ones at the end.

    The step is fixed beforehand, so values can come in any order, and the same values give the same chart.
    With `log` the bins are eighths of an octave.
    """

    step: float
    series: int
    log: bool = False
    bins: dict[int, list[int]] = field(default_factory=dict)
    count: int = 0

    def add_value(self, value: float | None, series: int) -> None:
        """Count one value; a missing or non-finite one is ignored."""
        if value is None or not math.isfinite(value):
            return
        self.bins.setdefault(self._get_bin(value), [0] * self.series)[series] += 1
        self.count += 1

    def _get_bin(self, value: float) -> int:
        scaled = math.log2(max(value, _LOG_FLOOR)) if self.log else value
        # Half an ulp of slack: 0.3 / 0.1 is 2.999..., and belongs to the bin that starts at 0.3.
        return math.floor(scaled / self.step + 1e-9)

    def merge_bins(self, around: Iterable[float] = (), max_bins: int = MAX_BINS) -> dict[str, Any] | None:
        """Merge into about `max_bins` bins at most, over all values and the thresholds `around`.

        Returns:
            None without a value; else `start` and `width` of the bins (in octaves where `log`), `log`,
            `count`, `beyond` (the last bin also holds everything above it) and `bins`: per bin one count per
            series.
        """
        if not self.bins:
            return None
        lines = [self._get_bin(value) for value in around if math.isfinite(value)]
        first, last = min([*self.bins, *lines]), max([*self.bins, *lines])
        # One outlier must not squeeze all other values into one bar: the last bar then means "and above".
        crowd = max([self._find_quantile(0.99), *lines])
        beyond = (last - first) > 3 * max(crowd - first, 1)
        last = crowd + 1 if beyond else last
        factor = next(f for f in _generate_factors() if last // f - first // f + 1 <= max_bins)
        merged = [[0] * self.series for _ in range(last // factor - first // factor + 1)]
        for index, counts in self.bins.items():
            target = merged[min(index, last) // factor - first // factor]
            for series, count in enumerate(counts):
                target[series] += count
        width = self.step * factor
        return {
            "start": round((first // factor) * width, 9),
            "width": round(width, 9),
            "log": self.log,
            "count": self.count,
            "beyond": beyond,
            "bins": merged,
        }

    def _find_quantile(self, share: float) -> int:
        """The bin up to which `share` of the values lie."""
        seen = 0
        for index in sorted(self.bins):
            seen += sum(self.bins[index])
            if seen >= share * self.count:
                return index
        return 0


def _generate_factors() -> Iterable[int]:
    scale = 1
    while True:
        for factor in _BIN_FACTORS:
            yield factor * scale
        scale *= 10


def _build_histogram(score: str) -> Histogram:
    if score == "sharpness":  # spans several orders of magnitude
        return Histogram(step=0.125, series=3, log=True)
    steps = {"brightness": 1.0, "face_count": 1.0, "flow_foreground": 0.5, "flow_background": 0.5}
    return Histogram(step=steps.get(score, 0.001), series=3)


@dataclass(frozen=True)
class ReportThreshold:
    """A threshold of the manifest; missing fields get defaults."""

    name: str
    score: str
    bound: str  # min | max
    value: float
    applies_to: str  # "all" or a taxonomy group
    source: str

    def is_missed(self, score: float | None, group: str | None) -> bool:
        """Whether a subject of `group` with this score misses the threshold; an unmeasured one does not."""
        if score is None or self.applies_to not in ("all", group):
            return False
        return score < self.value if self.bound == "min" else score > self.value


def read_thresholds(manifest: Mapping[str, Any]) -> list[ReportThreshold]:
    """Read the manifest's thresholds, without those that lack a score or a number."""
    found = []
    for entry in manifest.get("thresholds") or []:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("value"), int | float):
            continue
        score = str(entry.get("score") or "")
        bound = "max" if entry.get("bound") == "max" else "min"
        if score:
            found.append(
                ReportThreshold(
                    name=str(entry.get("name") or f"{score}_{bound}"),
                    score=score,
                    bound=bound,
                    value=float(entry["value"]),
                    applies_to=str(entry.get("applies_to") or "all"),
                    source=str(entry.get("source") or ""),
                )
            )
    return found


class Survey:
    """Counts over every row of a dataset."""

    def __init__(self, thresholds: Sequence[ReportThreshold]) -> None:
        self.thresholds = list(thresholds)
        self.clips: Counter[str] = Counter()
        self.subjects: Counter[str] = Counter()
        self.references: Counter[str] = Counter()
        self.rows = 0
        self.reasons: dict[str, Counter[str]] = {"video": Counter(), "clip": Counter(), "subject": Counter()}
        self.licenses: dict[str, Counter[str]] = {}
        self.categories: dict[str, dict[str, Any]] = {}
        self.kept_seconds = 0.0
        self.scores = {name: _build_histogram(name) for name in Scores.__annotations__}
        self.lengths = Histogram(step=0.05, series=2)
        self.motion = Histogram(step=0.001, series=2)
        self.camera_motion = Histogram(step=0.001, series=2)

    def add_row(self, row: Row) -> None:
        """Count one row; it needs only `COLUMNS`, of which some may be missing.

        A row without a span is a video without a clip and is not counted as a clip.
        """
        status = row.get("status") or "open"
        series = 0 if status == "kept" else 1
        unit = "video" if row.get("start_frame") is None else "clip"
        self.rows += 1
        if unit == "clip":
            self.clips["in"] += 1
            self.clips[status] += 1
        if row.get("stop"):
            self.reasons[unit][row["stop"].get("reason") or "unnamed"] += 1
        by_status = self.licenses.setdefault(row.get("license") or "", Counter())
        by_status["in"] += 1
        by_status[status] += 1
        start, end = row.get("start_s"), row.get("end_s")
        if start is not None and end is not None:
            self.lengths.add_value(end - start, series)
            self.kept_seconds += end - start if status == "kept" else 0.0
        self.motion.add_value(row.get("motion"), series)
        self.camera_motion.add_value(row.get("camera_motion"), series)
        for subject in row.get("subjects") or []:
            self._add_subject(subject)

    def _add_subject(self, subject: Row) -> None:
        verdict = subject.get("verdict")
        kept = bool(verdict and verdict.get("kept"))
        group = subject.get("group")
        scores = subject.get("scores") or {}
        self.subjects["candidates"] += 1
        self.subjects["found"] += subject.get("frame_index") is not None
        self.subjects["kept"] += kept
        name = subject.get("category") or "unnamed"
        category = self.categories.setdefault(name, {"group": group or "", "found": 0, "kept": 0})
        category["found"] += subject.get("frame_index") is not None
        category["kept"] += kept
        if verdict and not kept:
            self.reasons["subject"][verdict.get("reason") or "unnamed"] += 1
        for reference in subject.get("references") or []:
            if reference.get("kept") is not False:
                self.references[reference.get("variant") or "unnamed"] += 1
        for score, histogram in self.scores.items():
            value = scores.get(score)
            missed = any(t.is_missed(value, group) for t in self.thresholds if t.score == score)
            histogram.add_value(value, KEPT if kept else MISSED_HERE if missed else MISSED_ELSEWHERE)

    def build_score_charts(self) -> list[dict[str, Any]]:
        """Build one chart per measured score; those with a threshold come first."""
        charts = []
        for score, histogram in self.scores.items():
            lines = [t for t in self.thresholds if t.score == score]
            drawn = histogram.merge_bins(around=[t.value for t in lines])
            if drawn is not None:
                charts.append({"score": score, "lines": [vars(t) for t in lines], **drawn})
        return sorted(charts, key=lambda chart: not chart["lines"])

    def list_unmeasured(self) -> list[str]:
        """List the scores that no subject has."""
        return [score for score, histogram in self.scores.items() if not histogram.count]
