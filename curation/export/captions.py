"""Replace the phrases that name subjects in a caption by tags."""

from __future__ import annotations

from collections.abc import Sequence


def tag_caption(caption: str, phrases: Sequence[str], tag: str | None) -> str:
    """Replace phrases in a caption by tags.

    Args:
        caption: the text of one or more sentences.
        phrases: the phrases of the subjects with a reference, in the order of the references. Each one is
            replaced at its first occurrence that no earlier phrase has replaced.
        tag: a template with `{phrase}` and `{number}`, the number of the reference from 1. None: the caption
            does not change.
    """
    if tag is None:
        return caption
    spans: list[tuple[int, int, str]] = []
    for number, phrase in enumerate(phrases, start=1):
        start = _find_free(caption, phrase, spans)
        if start is not None:
            end = start + len(phrase)
            spans.append((start, end, tag.format(phrase=caption[start:end], number=number)))
    for start, end, text in sorted(spans, reverse=True):
        caption = caption[:start] + text + caption[end:]
    return caption


def _find_free(caption: str, phrase: str, spans: Sequence[tuple[int, int, str]]) -> int | None:
    """Find the first occurrence of a phrase that overlaps no replaced span; None: there is none."""
    lowered, wanted = caption.lower(), phrase.lower()
    if not wanted or len(lowered) != len(caption):  # lower case changed the length, so positions differ: skip
        return None
    start = lowered.find(wanted)
    while start >= 0:
        if all(start + len(phrase) <= first or start >= last for first, last, _ in spans):
            return start
        start = lowered.find(wanted, start + 1)
    return None
