"""Extend a name to its noun phrase: the adjectives before it, and the determiner before them.

Grounding searches for the phrase ("fluffy grey puppy"). The determiner gives the count, and shows that the
name is a noun.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Literal

from curation.taxonomy.grammar import (
    AUXILIARIES,
    CLOSED_CLASS_WORDS,
    DETERMINERS,
    NUMBERS,
    PREPOSITIONS,
    parse_number,
)
from curation.taxonomy.names import NameForm
from curation.taxonomy.sentence import BREAK, COMMA, HYPHEN, SPACE, Sentence

_MAX_MODIFIERS = 12  # before a noun; no real phrase has more, and it limits the work
_MAX_UNKNOWN = 2  # unknown words between a determiner and a name

# The reason why a word describes the name after it, and its certainty.
ModifierKind = Literal["known", "joined", "hyphened", "participle", "ing", "adverb", "unknown"]


@dataclass(frozen=True)
class Adjectives:
    """The adjectives: all of them, and the subsets with their own rules (see adjectives.yaml)."""

    words: frozenset[str] = frozenset()
    also_verbs: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    phrase_ends: frozenset[str] = frozenset()


@dataclass(slots=True)
class NounPhrase:
    """A name found at words[first:stop], and the phrase around it.

    Attributes:
        compound_first: first word of names that only describe it ("dog" in "dog bed"), else `first`.
        left: first word of the phrase.
        determiner: position of the determiner, number or possessor right before the phrase; -1: none.
    """

    form: NameForm
    first: int
    stop: int
    compound_first: int = field(init=False)
    left: int = field(init=False)
    determiner: int = -1

    def __post_init__(self) -> None:
        self.compound_first = self.left = self.first

    @property
    def is_plural(self) -> bool:
        """Whether the name is certainly a plural."""
        return self.form.is_surely_plural

    def get_determiner_key(self, sentence: Sentence) -> str:
        """Return the key of the determiner; "" without one."""
        return sentence.get_key(self.determiner)

    def find_start(self, sentence: Sentence) -> int:
        """Find the first word of the phrase with all its determiners: "all the three dogs"."""
        return sentence.find_determiners(self.determiner if self.determiner >= 0 else self.left)


@dataclass(frozen=True)
class _Modifier:
    first: int  # its first word
    kind: ModifierKind


def widen_phrase(
    phrase: NounPhrase, sentence: Sentence, adjectives: Adjectives, name_ends: Container[int]
) -> None:
    """Set `left` and `determiner` of a phrase, in place.

    Args:
        phrase: the name.
        sentence: its sentence.
        adjectives: all adjectives.
        name_ends: ends of names (`stop`); a phrase does not extend into the name before it.
    """
    modifiers: list[_Modifier] = []  # nearest first
    at = phrase.compound_first
    while at > 0 and len(modifiers) < _MAX_MODIFIERS:
        gap, before = sentence.words[at].gap, sentence.words[at - 1]
        if gap == BREAK or before.possessive or at in name_ends:
            break
        if gap == COMMA or before.key == "and":
            modifier = _read_joined_adjective(sentence, at, modifiers, adjectives, name_ends)
        else:
            modifier = _read_modifier(sentence, at, bool(modifiers), adjectives)
        if modifier is None:
            break
        modifiers.append(modifier)
        at = modifier.first
    phrase.left, phrase.determiner = _trim_modifiers(phrase, sentence, modifiers, name_ends)


def _read_joined_adjective(
    sentence: Sentence,
    at: int,
    modifiers: Sequence[_Modifier],
    adjectives: Adjectives,
    name_ends: Container[int],
) -> _Modifier | None:
    """Read the adjective before a comma or an "and": "brown and white dog", "a big, red dog".

    Both sides must be plain adjectives.
    """
    words = sentence.words
    by_comma = words[at].gap == COMMA
    other = at - 1 if by_comma else at - 2
    is_after_adjective = bool(modifiers) and modifiers[-1].kind in ("known", "joined")
    is_spaced = by_comma or (words[at - 1].gap in (SPACE, COMMA) and words[at].gap != HYPHEN)
    if other < 0 or other + 1 in name_ends or not is_after_adjective or not is_spaced:
        return None
    if words[other].key not in adjectives.words or words[other].possessive:
        return None
    if not by_comma and words[other].key in adjectives.also_verbs and other > 0:
        # "a man painted and white walls": after an unknown word it is a verb.
        before = words[other - 1].key
        if before not in CLOSED_CLASS_WORDS and before not in adjectives.words:
            return None
    return _Modifier(other, "joined")


def _read_modifier(
    sentence: Sentence, stop: int, is_before_adjective: bool, adjectives: Adjectives
) -> _Modifier | None:
    """Read the word, or the hyphenated words, before `stop`; None: it is no modifier, so the phrase ends."""
    first = stop - 1
    while first > 0 and sentence.words[first].gap == HYPHEN:
        first -= 1
    if stop - first > 1:
        kind = _classify_hyphened(sentence, first, stop, adjectives)
    else:
        following = sentence.get_key(stop) if is_before_adjective else None
        kind = _classify_word(sentence, first, following, adjectives)
    return _Modifier(first, kind) if kind is not None else None


def _classify_hyphened(
    sentence: Sentence, first: int, stop: int, adjectives: Adjectives
) -> ModifierKind | None:
    joined = "-".join(sentence.get_keys(first, stop))
    if joined in adjectives.words:
        return "known"
    if joined in NUMBERS or sentence.get_key(stop - 1) in CLOSED_CLASS_WORDS:
        return None
    return None if sentence.has_possessive(first, stop) else "hyphened"


def _classify_word(
    sentence: Sentence, position: int, following: str | None, adjectives: Adjectives
) -> ModifierKind | None:
    """Classify a word before the adjective `following` (None: before the noun); None: the phrase ends."""
    key = sentence.get_key(position)
    if sentence.words[position].gap == HYPHEN:
        return None
    if following in ("year", "years") and parse_number(key) is not None:
        return "known"  # "a 10 year old boy" is no ten boys
    if key in adjectives.also_verbs:
        return "participle"
    if key in adjectives.words or (key in ("year", "years") and following == "old"):
        return "known"
    if key in CLOSED_CLASS_WORDS or key in adjectives.verbs or key in adjectives.phrase_ends or "'" in key:
        return None
    if key.isdigit() and len(key) < 4:
        return None
    if key.endswith("ly"):
        return "adverb" if following is not None else "unknown"
    if key.endswith("ing"):
        return "ing"
    if key.endswith(("ed", "ish")) or (key.endswith("y") and len(key) > 3):
        return "participle"
    if key.endswith("s") and not key.endswith(("ss", "less", "ous")):
        return None  # "the stranger walks dogs": usually a verb, rarely an adjective
    return "unknown"


def _trim_modifiers(
    phrase: NounPhrase, sentence: Sentence, modifiers: Sequence[_Modifier], name_ends: Container[int]
) -> tuple[int, int]:
    """Keep all modifiers after a determiner, else only the certain ones; return (left, determiner)."""
    for keep in range(len(modifiers), -1, -1):
        left = modifiers[keep - 1].first if keep else phrase.compound_first
        kinds = [modifier.kind for modifier in modifiers[:keep]]
        determiner = _find_determiner(sentence, left, phrase)
        if determiner >= 0:
            if _is_description(kinds):
                return left, determiner
        elif keep and _can_open_phrase(sentence, left, kinds, name_ends):
            return left, -1
    return phrase.compound_first, _find_determiner(sentence, phrase.compound_first, phrase)


def _is_description(kinds: Sequence[ModifierKind]) -> bool:
    """Return whether the words between a determiner and a name (nearest first) describe the name.

    An unknown word before a participle is more likely a subject with its verb: "the stranger petted dogs".
    """
    unknown = [index for index, kind in enumerate(kinds) if kind == "unknown"]
    if len(unknown) > _MAX_UNKNOWN:
        return False
    return all(kind not in ("participle", "ing") for kind in kinds[: max(unknown, default=0)])


def _can_open_phrase(
    sentence: Sentence, left: int, kinds: Sequence[ModifierKind], name_ends: Container[int]
) -> bool:
    """Return whether a phrase without a determiner can start at `left`, a modifier of the last kind.

    Its start is uncertain, so it contains no doubtful word.
    """
    kind = kinds[-1]
    before = sentence.get_key(left - 1)
    if any(each in ("unknown", "ing", "adverb") for each in kinds):
        return False
    if kind == "joined" and before in AUXILIARIES:
        return False  # "the sky is blue and green trees sway"
    if kind != "participle":
        return True
    if sentence.is_opening(left) or sentence.is_joined(left, COMMA):
        return True
    return left not in name_ends and (before in PREPOSITIONS or before == "and")


def _find_determiner(sentence: Sentence, left: int, phrase: NounPhrase) -> int:
    """Find the determiner, number or possessor directly before words[left]; -1: there is none."""
    is_spaced = sentence.is_joined(left, SPACE)
    if sentence.is_possessive(left - 1):
        return left - 1 if is_spaced else -1
    if not is_spaced:
        return -1
    key = sentence.get_key(left - 1)
    number = parse_number(key)
    if number is not None and number > 1:
        return left - 1 if phrase.form.plural else -1
    if key in ("a", "an") and phrase.is_plural:
        return -1  # "a stranger walks dogs": that "a" is not theirs
    return left - 1 if number is not None or key in DETERMINERS else -1
