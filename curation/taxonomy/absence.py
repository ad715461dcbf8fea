"""Find names of things that the video does not show: negated ("no dog") or compared ("like a cat")."""

from __future__ import annotations

from collections.abc import Container, Iterable

from curation.rows.groups import HUMAN
from curation.taxonomy.grammar import ABSENCE_WORDS, LIGHT_VERBS, is_negator
from curation.taxonomy.phrase import NounPhrase
from curation.taxonomy.sentence import COMMA, SPACE, Sentence

_DISGUISES = ("dressed", "disguised", "costumed")


def is_likeness(sentence: Sentence, phrase: NounPhrase, depictions: Container[str]) -> bool:
    """Return whether a phrase is a likeness: "a statue of a horse", "moves like a cat", "dressed as a bear".

    Args:
        sentence: the sentence of the phrase.
        phrase: the name with its adjectives.
        depictions: words for things that depict another thing: "statue".
    """
    start = phrase.find_start(sentence)
    if not sentence.is_joined(start, SPACE):
        return False
    before, earlier = sentence.get_key(start - 1), sentence.get_key(start - 2)
    if before == "of":
        return earlier in depictions
    if before == "like":
        return phrase.get_determiner_key(sentence) in ("a", "an")
    return before == "as" and earlier in _DISGUISES and phrase.form.group != HUMAN


def drop_denied(sentence: Sentence, phrases: Iterable[NounPhrase]) -> list[NounPhrase]:
    """Drop negated phrases: "no dog", "without a hat or gloves", "not wearing a hat"."""
    kept: list[NounPhrase] = []
    denied_stop = -1  # end of the last negated phrase; an "or" there continues the negation
    for phrase in phrases:
        start = phrase.find_start(sentence)
        is_absent = _is_denied(sentence, start, phrase)
        if not is_absent and denied_stop >= 0:
            is_absent = _continues_denial(sentence, denied_stop, start, phrase)
        denied_stop = phrase.stop if is_absent else -1
        if not is_absent:
            kept.append(phrase)
    return kept


def _is_denied(sentence: Sentence, start: int, phrase: NounPhrase) -> bool:
    """Return whether the words before a phrase negate it. It begins at `start` with its determiners."""
    if any(key in ("no", "neither") for key in sentence.get_keys(start, phrase.left)):
        return True
    if not sentence.is_joined(start, SPACE):
        return False
    before = sentence.get_key(start - 1)
    if is_negator(before):
        return True
    if before == "of":
        return sentence.get_key(start - 2) in ABSENCE_WORDS
    at = start - 1
    while sentence.is_joined(at, SPACE) and sentence.get_key(at) in LIGHT_VERBS:
        at -= 1
        if is_negator(sentence.get_key(at)):
            return True
    return False


def _continues_denial(sentence: Sentence, denied_stop: int, start: int, phrase: NounPhrase) -> bool:
    """Return whether a phrase continues a negated list: "no hat or gloves", "no hats, gloves or scarves"."""
    between = sentence.get_keys(denied_stop, start)
    if between in (["or"], ["nor"]):
        return True
    is_bare_in_list = not between and sentence.is_joined(start, COMMA) and phrase.determiner < 0
    following = sentence.get_keys(phrase.stop, phrase.stop + 2)
    return is_bare_in_list and ("or" in following or "nor" in following)
