"""What a person is asked about a subject, and which filter each answer judges.

Kaleido A.1 evaluates its category filter and its face detection by hand; the other questions do the same
for the filters on masks, on picture quality, on overlaps and on what was generated. Which questions are
asked follows from what was found and never from a verdict: the questions alone must not say what the
filters decided.
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
    """One thing to be judged. `yes` always speaks for the subject."""

    name: str
    title: str  # as the page asks it; {phrase} and {variant} are filled in
    hint: str  # when to say yes
    summary_title: str  # as the summary calls it


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

# Score -> the question that says whether missing its threshold was deserved.
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
    """The questions about a subject, in the order in which they are asked.

    Args:
        box: it was found.
        mask: segmentation left something of it.
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
    """The question about one generated picture, by the picture's name."""
    return Question(
        SAME_PREFIX + name, _SAME_TEMPLATE.title, _SAME_TEMPLATE.hint, _SAME_TEMPLATE.summary_title
    )


def is_rejection_right(
    failure: str, answers: Mapping[str, Answer], questions: Sequence[Question]
) -> bool | None:
    """Whether a person's answers bear out one reason for a rejection.

    A threshold is borne out by `no` to its own question. A reason without one (no mask; a threshold that this
    table does not know) is borne out by `no` to any question, and not by `yes` to all.

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
    """Whether a subject deserves its place: `yes` to all questions about it.

    Returns:
        None: not answered in full, or the person could not tell and said no to nothing.
    """
    given = [answers.get(question.name) for question in questions]
    if "no" in given:
        return False
    return True if given and all(answer == "yes" for answer in given) else None
