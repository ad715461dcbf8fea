"""Statistics of answers: accuracy per filter, precision per question, estimates for the whole dataset.

Kaleido A.1 reports such figures for its own data: the CLIP category filter above 92 %, face detection above
95 %. All shares are 0..1; intervals are Wilson's at 95 %. Pure functions.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from curation.audit.questions import (
    SAME_PREFIX,
    SUBJECT_QUESTIONS,
    Answer,
    build_reference_question,
    is_good_subject,
    is_rejection_right,
)
from curation.audit.sample import AuditItem, AuditSample

Z95: Final = 1.959963984540054  # two-sided 95 % of the normal distribution

# What Kaleido A.1 reports of its own filters, on subjects that were kept.
KALEIDO_ACCURACY: Final[Mapping[str, float]] = {"category": 0.92, "frontal": 0.95}

Answers = Mapping[str, Mapping[str, Answer]]  # subject_id -> question -> answer


def compute_wilson_interval(successes: float, trials: float, z: float = Z95) -> tuple[float, float]:
    """Compute Wilson's score interval of a share (Wilson 1927); (0, 1) without trials.

    `successes` and `trials` may be fractions: a weighted estimate has an effective number of trials.

    Raises:
        ValueError: negative numbers, or more successes than trials.
    """
    if trials < 0 or successes < 0 or successes > trials * (1 + 1e-9):
        raise ValueError(f"{successes} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    share = min(1.0, successes / trials)
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # Rounding must not move a bound beyond a share of 0 or 1.
    low = 0.0 if share == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if share == 1 else min(1.0, (centre + spread) / scale)
    return low, high


def compute_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Compute Cohen's kappa of two judges (Cohen 1960): 1 perfect, 0 chance, below 0 worse than chance.

    None: there are no pairs, or both judges always gave the same answer.
    """
    if not pairs:
        return None
    total = len(pairs)
    observed = sum(left == right for left, right in pairs) / total
    lefts, rights = Counter(left for left, _ in pairs), Counter(right for _, right in pairs)
    chance = sum(lefts[word] * rights[word] for word in lefts) / (total * total)
    return None if chance == 1 else (observed - chance) / (1 - chance)


@dataclass(frozen=True)
class AgreementRow:
    """One row of the table: how often the person agreed."""

    name: str  # a question, a threshold, or a variant
    of: str  # kept | rejected | generated
    judged: int
    agreed: int
    unsure: int  # the person could not tell; not in `judged`

    @property
    def accuracy(self) -> float | None:
        """Share of agreement, 0..1; None: nothing was judged."""
        return self.agreed / self.judged if self.judged else None

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the accuracy at 95 %."""
        return compute_wilson_interval(self.agreed, self.judged)


@dataclass(frozen=True)
class ShareEstimate:
    """A share in the whole dataset, estimated from a sample with unequal weights."""

    name: str
    share: float | None
    low: float
    high: float
    judged: int


@dataclass(frozen=True)
class JudgeAgreement:
    """How far two judges agree."""

    judges: tuple[str, str]
    answers: int  # questions that both answered
    agreed: int
    kappa: float | None


@dataclass(frozen=True)
class AuditSummary:
    """The results of an audit."""

    kept: list[AgreementRow]  # precision of the kept subjects, per question
    rejected: list[AgreementRow]  # per threshold: was the rejection right?
    generated: list[AgreementRow]  # per variant: does the picture show the same subject?
    dataset: list[ShareEstimate]
    kappas: list[JudgeAgreement] = field(default_factory=list)
    subjects: int = 0  # with an answer
    drawn: int = 0
    uncovered: int = 0  # subjects of the dataset in strata where nothing was judged


def estimate_share(name: str, outcomes: Iterable[tuple[float, bool]]) -> ShareEstimate:
    """Estimate the share of true outcomes from (weight, outcome) pairs.

    The interval is Wilson's with Kish's effective sample size, (sum w)^2 / sum w^2. It ignores that a large
    part of a small dataset may have been judged, so it is rather too wide than too narrow.
    """
    listed = list(outcomes)
    total = math.fsum(weight for weight, _ in listed)
    if not total:
        return ShareEstimate(name, None, 0.0, 1.0, 0)
    share = math.fsum(weight for weight, outcome in listed if outcome) / total
    effective = total * total / math.fsum(weight * weight for weight, _ in listed)
    low, high = compute_wilson_interval(min(share, 1.0) * effective, effective)
    return ShareEstimate(name, share, low, high, len(listed))


def find_consensus(all_answers: Sequence[Answers]) -> dict[str, dict[str, Answer]]:
    """Return one answer per question: that of most judges who could tell; a tie is unsure."""
    votes: dict[str, dict[str, Counter[Answer]]] = {}
    for answers in all_answers:
        for subject, given in answers.items():
            for question, answer in given.items():
                votes.setdefault(subject, {}).setdefault(question, Counter())[answer] += 1
    return {
        subject: {question: _find_majority(count) for question, count in questions.items()}
        for subject, questions in votes.items()
    }


def _find_majority(count: Counter[Answer]) -> Answer:
    if count["yes"] == count["no"]:
        return "unsure"
    return "yes" if count["yes"] > count["no"] else "no"


def summarise_audit(sample: AuditSample, by_judge: Mapping[str, Answers]) -> AuditSummary:
    """Summarise the answers of all judges.

    A subject that several judges judged counts once, with their consensus. A subject that missed several
    thresholds counts for each. The verdicts are the dataset's current ones.
    """
    answers = find_consensus(list(by_judge.values()))
    judged = [item for item in sample.items if answers.get(item.subject_id)]
    return AuditSummary(
        kept=_build_kept_rows(judged, answers),
        rejected=_build_rejected_rows(judged, answers),
        generated=_build_generated_rows(judged, answers),
        dataset=_build_estimates(sample, judged, answers),
        kappas=_build_kappas(sample, by_judge),
        subjects=len(judged),
        drawn=len(sample.items),
        uncovered=_count_uncovered(sample, judged, answers),
    )


def _build_row(name: str, of: str, outcomes: Iterable[bool | None]) -> AgreementRow:
    count = Counter(outcomes)
    return AgreementRow(name, of, count[True] + count[False], count[True], count[None])


def _build_kept_rows(judged: Sequence[AuditItem], answers: Answers) -> list[AgreementRow]:
    kept = [item for item in judged if item.kept]
    rows = []
    for question in SUBJECT_QUESTIONS:
        given = [answers[i.subject_id].get(question.name) for i in kept if question in i.questions]
        rows.append(_build_row(question.name, "kept", (_is_yes(answer) for answer in given if answer)))
    complete = [i for i in kept if all(q.name in answers[i.subject_id] for q in i.questions)]
    rows.append(
        _build_row("all", "kept", (is_good_subject(answers[i.subject_id], i.questions) for i in complete))
    )
    return [row for row in rows if row.judged or row.unsure]


def _build_rejected_rows(judged: Sequence[AuditItem], answers: Answers) -> list[AgreementRow]:
    outcomes: dict[str, list[bool | None]] = {}
    for item in judged:
        if item.kept:
            continue
        given = answers[item.subject_id]
        for failure in item.failures or (item.reason or "rejected",):
            agreed = is_rejection_right(failure, given, item.questions)
            if agreed is not None or all(q.name in given for q in item.questions):
                outcomes.setdefault(failure, []).append(agreed)
    rows = [_build_row(name, "rejected", found) for name, found in outcomes.items()]
    return sorted(rows, key=lambda row: (-row.judged, row.name))


def _build_generated_rows(judged: Sequence[AuditItem], answers: Answers) -> list[AgreementRow]:
    kept: dict[str, list[bool | None]] = {}
    rejected: dict[str, list[bool | None]] = {}
    for item in judged:
        for picture in item.generated:
            answer = answers[item.subject_id].get(build_reference_question(picture.name).name)
            if answer is None:
                continue
            same = _is_yes(answer)
            if picture.kept:
                kept.setdefault(picture.variant, []).append(same)
            else:
                reason = f"{picture.variant}: {picture.reason or 'rejected'}"
                rejected.setdefault(reason, []).append(None if same is None else not same)
    return [_build_row(name, "generated", kept[name]) for name in sorted(kept)] + [
        _build_row(name, "rejected", rejected[name]) for name in sorted(rejected)
    ]


def _is_yes(answer: Answer) -> bool | None:
    return None if answer == "unsure" else answer == "yes"


def _select_decided(items: Sequence[AuditItem], answers: Answers) -> list[tuple[AuditItem, bool]]:
    """Items with answers that decide whether they should be kept."""
    found = ((item, is_good_subject(answers.get(item.subject_id, {}), item.questions)) for item in items)
    return [(item, fine) for item, fine in found if fine is not None]


def _compute_weights(sample: AuditSample, decided: Sequence[tuple[AuditItem, bool]]) -> dict[str, float]:
    """Return stratum -> number of subjects that one decided item represents, with the current answers."""
    count = Counter(item.stratum for item, _ in decided)
    return {name: sample.strata[name].population / number for name, number in count.items()}


def _build_estimates(
    sample: AuditSample, judged: Sequence[AuditItem], answers: Answers
) -> list[ShareEstimate]:
    decided = _select_decided(judged, answers)
    weights = _compute_weights(sample, decided)
    of = [(weights[item.stratum], item.kept, fine) for item, fine in decided]
    return [
        estimate_share("correct decisions", ((weight, kept == fine) for weight, kept, fine in of)),
        estimate_share("kept correctly", ((weight, fine) for weight, kept, fine in of if kept)),
        estimate_share("rejected correctly", ((weight, not fine) for weight, kept, fine in of if not kept)),
        estimate_share("good subjects kept", ((weight, kept) for weight, kept, fine in of if fine)),
    ]


def _count_uncovered(sample: AuditSample, judged: Sequence[AuditItem], answers: Answers) -> int:
    seen = {item.stratum for item, _ in _select_decided(judged, answers)}
    return sum(stratum.population for name, stratum in sample.strata.items() if name not in seen)


def _build_kappas(sample: AuditSample, by_judge: Mapping[str, Answers]) -> list[JudgeAgreement]:
    found = []
    for left, right in itertools.combinations(sorted(by_judge), 2):
        pairs = [
            (by_judge[left][subject][question], by_judge[right][subject][question])
            for subject in by_judge[left].keys() & by_judge[right].keys() & sample.by_id.keys()
            for question in by_judge[left][subject].keys() & by_judge[right][subject].keys()
        ]
        if pairs:
            agreed = sum(a == b for a, b in pairs)
            found.append(JudgeAgreement((left, right), len(pairs), agreed, compute_kappa(pairs)))
    return found


def get_row_title(row: AgreementRow) -> str:
    """Return the title of a row of the table."""
    titles = {question.name: question.summary_title for question in SUBJECT_QUESTIONS} | {
        "all": "all of these"
    }
    if row.of == "generated":
        return f"same identity: {row.name}"
    return titles.get(row.name, row.name.removeprefix(SAME_PREFIX))
