"""A stage measures; a verdict decides. Pure functions from scores and thresholds to keep or reject.

Nothing here looks at a picture, so `reprise refilter` can run it again over a finished dataset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from curation.rows.schema import ClipRow, Reference, StopReason, SubjectRow, Verdict
from curation.rows.stage_names import FILTER
from curation.rows.thresholds import ThresholdRule

NOT_FOUND = "not found"
# Failures that may not happen again, on another machine or with more memory.
DECODER_STALLED = "the decoder gave no frame in time"
WORKER_DIED = "the worker process died on this video again and again"
RETRIED_REASONS = frozenset((DECODER_STALLED, WORKER_DIED))  # each run that lists the video retries it
NO_MASK = "no mask"
_MISSING_RANK = {NO_MASK: 1, NOT_FOUND: 2}  # these failed before any threshold was applied


def decide_subject(subject: SubjectRow, rules: Sequence[ThresholdRule]) -> Verdict:
    """Compare every score with its rules. The first missed rule is the reason; all are listed.

    A score that was not measured (missing, null, NaN) rejects nothing. A candidate that grounding never found
    is rejected as `not found`, one with an empty mask as `no mask`, whatever the rules.
    """
    if subject["box"] is None:
        return _make_verdict(False, NOT_FOUND, None, None, [NOT_FOUND], [])
    scores = cast(Mapping[str, float | None], subject["scores"])
    if subject["mask"] is None or scores.get("area_share") == 0:
        return _make_verdict(False, NO_MASK, None, None, [NO_MASK], [])
    failures: list[tuple[str, float, float]] = []
    unmeasured: list[str] = []
    for rule in rules:
        if rule.target != "subject" or not _is_applicable(rule, subject):
            continue
        number = scores.get(rule.score)
        if number is None or math.isnan(number):
            # A subject without a face has no face size: the face count decides for all of them.
            if not (rule.score.startswith("face_") and scores.get("face_count") == 0):
                unmeasured.append(rule.name)
            continue
        if _is_violated(number, rule):
            failures.append((rule.name, number, rule.value))
    if not failures:
        return _make_verdict(True, None, None, None, [], unmeasured)
    name, number, threshold = failures[0]
    return _make_verdict(False, name, number, threshold, [each[0] for each in failures], unmeasured)


def decide_reference(
    reference: Reference, subject: SubjectRow, rules: Sequence[ThresholdRule]
) -> tuple[bool, str | None]:
    """Decide whether a picture still shows its subject (Kaleido 3.2 (6)).

    A number that was not measured rejects nothing: crops and cut-outs are the subject itself.

    Returns:
        Whether it is kept, and the name of the first threshold that was missed.
    """
    numbers = cast(Mapping[str, float | None], reference)
    for rule in rules:
        if rule.target == "reference" and _is_applicable(rule, subject):
            number = numbers.get(rule.score)
            if number is not None and not math.isnan(number) and _is_violated(number, rule):
                return False, rule.name
    return True, None


def decide_references(subject: SubjectRow, rules: Sequence[ThresholdRule]) -> None:
    """Set `kept` and `reason` of every reference, in place."""
    for reference in subject["references"]:
        reference["kept"], reference["reason"] = decide_reference(reference, subject, rules)


def _is_applicable(rule: ThresholdRule, subject: SubjectRow) -> bool:
    return rule.group is None or rule.group == subject["group"]


def _is_violated(number: float, rule: ThresholdRule) -> bool:
    return number < rule.value if rule.bound == "min" else number > rule.value


def _make_verdict(
    kept: bool,
    reason: str | None,
    value: float | None,
    threshold: float | None,
    failures: list[str],
    unmeasured: list[str],
) -> Verdict:
    return {
        "kept": kept,
        "reason": reason,
        "value": value,
        "threshold": threshold,
        "failures": failures,
        "unmeasured": unmeasured,
    }


def decide_clip(row: ClipRow, rules: Sequence[ThresholdRule]) -> None:
    """Set the verdict of every subject and of its references, and the row's status, in place.

    A row that stopped before its subjects were measured (a corrupt video, no caption) stays as it is. Of the
    others, one with at least one kept subject is kept; one without is rejected at stage `filter`.
    """
    if row["stop"] is not None and row["stop"]["stage"] != FILTER:
        return
    for subject in row["subjects"]:
        subject["verdict"] = decide_subject(subject, rules)
        decide_references(subject, rules)
    if any(subject["verdict"]["kept"] for subject in row["subjects"] if subject["verdict"]):
        row["status"], row["stop"] = "kept", None
    else:
        row["status"], row["stop"] = "rejected", _explain_no_subject(row["subjects"])


def _explain_no_subject(subjects: Sequence[SubjectRow]) -> StopReason:
    """Give the reason of the best subject: the one with the fewest failures."""
    verdicts = [subject["verdict"] for subject in subjects if subject["verdict"]]
    if not verdicts:
        return {"stage": FILTER, "reason": "no subject", "value": None, "threshold": None}
    best = min(
        verdicts,
        key=lambda verdict: (_MISSING_RANK.get(verdict["reason"] or "", 0), len(verdict["failures"])),
    )
    reason = f"no subject kept: {best['reason']}"
    return {"stage": FILTER, "reason": reason, "value": best["value"], "threshold": best["threshold"]}
