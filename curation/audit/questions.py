"""The questions about a subject, and the filter that each answer judges.

Kaleido A.1 evaluates its category filter and its face detection by hand. The other questions do the same for
the filters on masks, picture quality, overlaps and generated pictures. The questions depend on what was found
and never on a verdict, so that they do not reveal what the filters decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from curation.rows.verdicts import NO_MASK, NOT_FOUND

Answer = Literal["yes", "no", "unsure"]
ANSWERS: Final[tuple[Answer, ...]] = ("yes", "no", "unsure")

SAME_PREFIX: Final = "same:"  # followed by the name of a reference: `same:redux0`


@dataclass(frozen=True)
class Question:
    """One question. The answer `yes` is always in favour of the subject."""

    name: str
    title: str  # on the page; {phrase} and {variant} are replaced
    hint: str  # when to say yes
    summary_title: str  # in the summary


PRESENT: Final = Question(
    "present", "Is “{phrase}” in this clip?", "Anywhere, at any time of the clip.", "in the clip at all"
)
CATEGORY: Final = Question(
    "category",
    "Right category?",
    "The box holds what “{phrase}” names, and not something else.",
    "right category",
)
MASK: Final = Question(
    "mask", "Clean mask?", "The cut-out holds all that is visible of it and nothing else.", "clean mask"
)
CLEAR: Final = Question(
    "clear", "Clear picture?", "Large, sharp and lit well enough to recognise it again.", "clear picture"
)
OWN: Final = Question(
    "own",
    "A subject of its own?",
    "Not a copy or a mere part of the one in the dashed box.",
    "subject of its own",
)
FRONTAL: Final = Question(
    "frontal",
    "A frontal face?",
    "Exactly one face, turned to the camera, large enough to recognise.",
    "frontal face",
)
_SAME_TEMPLATE: Final = Question(
    SAME_PREFIX,
    "{variant}: the same one?",
    "Shape, colours and marks are its own; pose, light and background may differ.",
    "same identity",
)

SUBJECT_QUESTIONS: Final = (PRESENT, CATEGORY, MASK, CLEAR, OWN, FRONTAL)

# Score -> the question that decides whether a rejection by its threshold was right.
_JUDGED_BY: Final[Mapping[str, Question]] = {
    "grounding": CATEGORY,
    "label": CATEGORY,
    "clip_category": CATEGORY,
    "clip_margin": CATEGORY,
    "segment": MASK,
    "border_share": MASK,
    "area_share": CLEAR,
    "brightness": CLEAR,
    "clipped_share": CLEAR,
    "visible_share": CLEAR,
    "sharpness": CLEAR,
    "overlap_iou": OWN,
    "overlap_containment": OWN,
    "face_count": FRONTAL,
    "face_share": FRONTAL,
    "face_score": FRONTAL,
    "face_frontality": FRONTAL,
}


def select_questions(*, box: bool, mask: bool, overlaps: bool, human: bool) -> list[Question]:
    """Select the questions about a subject, in their order.

    Args:
        box: the subject was found.
        mask: it has a mask.
        overlaps: it touches a larger subject of the same frame.
        human: it belongs to the taxonomy group `human`.
    """
    if not box:
        return [PRESENT]
    return [
        CATEGORY,
        *([MASK] if mask else []),
        CLEAR,
        *([OWN] if overlaps else []),
        *([FRONTAL] if human else []),
    ]


def build_reference_question(name: str) -> Question:
    """Build the question about one generated picture, by the picture's name."""
    return Question(
        SAME_PREFIX + name, _SAME_TEMPLATE.title, _SAME_TEMPLATE.hint, _SAME_TEMPLATE.summary_title
    )


def is_rejection_right(
    failure: str, answers: Mapping[str, Answer], questions: Sequence[Question]
) -> bool | None:
    """Return whether a person's answers confirm one reason for a rejection.

    `no` to a threshold's own question confirms it. A reason without a question (no mask, or an unknown
    threshold) is confirmed by `no` to any question, and refuted by `yes` to all.

    Returns:
        None: not answered, or the person could not tell.
    """
    if failure == NOT_FOUND:
        own: Question | None = PRESENT
    else:
        own = None if failure == NO_MASK else _JUDGED_BY.get(failure.rpartition("_")[0])
    if own is not None and own in questions:
        answer = answers.get(own.name)
        return None if answer in (None, "unsure") else answer == "no"
    fine = is_good_subject(answers, questions)
    return None if fine is None else not fine


def is_good_subject(answers: Mapping[str, Answer], questions: Sequence[Question]) -> bool | None:
    """Return whether a subject should be kept: `yes` to all questions about it.

    Returns:
        None: without any `no`, a question is not answered or the person could not tell.
    """
    given = [answers.get(question.name) for question in questions]
    if "no" in given:
        return False
    return True if given and all(answer == "yes" for answer in given) else None
