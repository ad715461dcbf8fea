"""Captions with tags in place of the phrases that name subjects."""

from __future__ import annotations

from collections.abc import Sequence


def tag_caption(caption: str, phrases: Sequence[str], tag: str | None) -> str:
    """Put tags in place of phrases.

    Args:
        caption: a sentence or more.
        phrases: of the subjects with a reference, in the order of the references; each is replaced where it
            stands first and is not replaced yet.
        tag: with `{phrase}` and `{number}`, the number of the reference from 1; None: the caption as it is.
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
    """Where a phrase stands first without a part of it being replaced already."""
    lowered, wanted = caption.lower(), phrase.lower()
    if not wanted or len(lowered) != len(caption):  # some letters change their length: leave such text alone
        return None
    start = lowered.find(wanted)
    while start >= 0:
        if all(start + len(phrase) <= first or start >= last for first, last, _ in spans):
            return start
        start = lowered.find(wanted, start + 1)
    return None
