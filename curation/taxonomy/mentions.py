"""Mentions: the things that a caption names, their counts, and the names that mean the same thing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from curation.taxonomy.grammar import (
    COUNTING_NOUNS,
    DEFINITE_DETERMINERS,
    NOT_SAME,
    NUMBERS,
    POSSESSIVES,
    SINGULAR_DETERMINERS,
    VAGUE_DETERMINERS,
    parse_number,
)
from curation.taxonomy.names import NameForm
from curation.taxonomy.phrase import NounPhrase
from curation.taxonomy.sentence import HYPHEN, SPACE, Sentence


@dataclass(frozen=True)
class Mention:
    """One thing that a caption names.

    Attributes:
        category: the name's category in the taxonomy.
        group: the group of that category.
        name: the taxonomy's own form of the word that matched (singular, lower case): "puppy".
        phrase: the noun with its adjectives, as in the caption, without its determiner: "fluffy grey puppy".
        start: first character of the phrase, so that caption[start:end] == phrase.
        end: end of the phrase.
        count: the number of things: "three red cups" 3, "a cup" 1, "the dog" 1; None: a plural without a
            number.
    """

    category: str
    group: str
    name: str
    phrase: str
    start: int
    end: int
    count: int | None


@dataclass(frozen=True)
class StandIn:
    """An adjective that changes the thing that its noun names ("plush"): the new thing, and the groups."""

    form: NameForm
    groups: frozenset[str]


@dataclass(frozen=True)
class _DescribedMention:
    mention: Mention
    noun: NounPhrase
    description: frozenset[str]  # keys of its adjectives


def merge_mentions(
    sentence: Sentence, phrases: Iterable[NounPhrase], stand_ins: Mapping[str, StandIn]
) -> list[Mention]:
    """Merge mentions, in text order. "a fluffy dog ... the dog" is one mention in its most detailed form."""
    by_category: dict[str, list[_DescribedMention]] = {}
    for noun in phrases:
        found = _describe_phrase(sentence, noun, stand_ins)
        kept = by_category.setdefault(found.mention.category, [])
        for index in range(len(kept) - 1, -1, -1):
            if _is_same_subject(sentence, kept[index], found):
                kept[index] = _choose_fuller(kept[index], found)
                break
        else:
            kept.append(found)
    mentions = [each.mention for kept in by_category.values() for each in kept]
    return sorted(mentions, key=lambda mention: mention.start)


def count_items(sentence: Sentence, noun: NounPhrase) -> int | None:
    """Return the number of things in a phrase; None: it is not stated."""
    form, position = noun.form, noun.determiner
    determiner = "" if sentence.is_possessive(position) else noun.get_determiner_key(sentence)
    number = parse_number(determiner)
    if number is not None and determiner != "one":
        if _is_part_of_number(sentence, position):
            return None
        return number if number != 1 or form.singular else None
    certainly_one = determiner in SINGULAR_DETERMINERS or determiner in ("this", "another")
    if certainly_one and not form.plural_only:
        return 1
    if determiner in VAGUE_DETERMINERS:
        return 1 if form.is_surely_singular and determiner not in ("each", "every") else None
    start = noun.find_start(sentence)
    counting_noun = sentence.get_key(start - 2)
    if sentence.get_key(start - 1) == "of" and counting_noun in COUNTING_NOUNS:
        unit = 1 if form.plural_only else COUNTING_NOUNS[counting_noun]
        times = parse_number(sentence.get_key(start - 3))
        return unit * (times if times is not None else 1)
    return 1 if form.is_surely_singular else None


def _is_part_of_number(sentence: Sentence, position: int) -> bool:
    """Return whether a number is part of a longer one or of a range: "twenty-two", "two or three"."""
    if sentence.is_joined(position, HYPHEN):
        return True
    before = sentence.get_key(position - 1)
    return sentence.is_joined(position, SPACE) and (before in ("or", "to", "than") or before in NUMBERS)


def _describe_phrase(
    sentence: Sentence, noun: NounPhrase, stand_ins: Mapping[str, StandIn]
) -> _DescribedMention:
    description = frozenset(sentence.get_keys(noun.left, noun.first)) - {"and"}
    form = _apply_stand_in(noun.form, description, stand_ins)
    start, end = sentence.get_span(noun.left, noun.stop)
    count = count_items(sentence, noun)
    mention = Mention(form.category, form.group, form.name, sentence.text[start:end], start, end, count)
    return _DescribedMention(mention, noun, description)


def _apply_stand_in(
    form: NameForm, description: frozenset[str], stand_ins: Mapping[str, StandIn]
) -> NameForm:
    for word in description & stand_ins.keys():
        if form.group in stand_ins[word].groups:
            return stand_ins[word].form
    return form


def _choose_fuller(earlier: _DescribedMention, later: _DescribedMention) -> _DescribedMention:
    """Choose the mention with more adjectives. The count is that of the earlier one if it states one."""
    if len(later.description) <= len(earlier.description):
        return earlier
    count = earlier.mention.count if earlier.mention.count is not None else later.mention.count
    return replace(later, mention=replace(later.mention, count=count))


def _is_same_subject(sentence: Sentence, earlier: _DescribedMention, later: _DescribedMention) -> bool:
    """Return whether `later`, of the same category, clearly means `earlier` again; false in doubt."""
    old, new = earlier.mention, later.mention
    if old.name != new.name and new.category not in (old.name, new.name):
        return False  # "a poodle ... the labrador"; but "a puppy ... the dog" is one
    is_nested = later.description <= earlier.description or earlier.description <= later.description
    if later.description & NOT_SAME or not is_nested:
        return False
    if earlier.noun.is_plural != later.noun.is_plural:
        return False
    counts_agree = new.count is None or old.count is None or new.count == old.count
    is_like_described = later.description == earlier.description
    position = later.noun.determiner
    determiner = later.noun.get_determiner_key(sentence)
    if position >= 0 and (sentence.is_possessive(position) or determiner in POSSESSIVES):
        has_same_owner = (
            earlier.noun.determiner >= 0 and earlier.noun.get_determiner_key(sentence) == determiner
        )
        return has_same_owner and is_like_described and counts_agree
    if determiner in DEFINITE_DETERMINERS:
        return counts_agree
    if position > 0 and sentence.get_key(position - 1) in DEFINITE_DETERMINERS:
        return counts_agree  # "the three cups"
    # There is no determiner: "on grass ... on the grass", "people ... people".
    is_bare = position < 0 and earlier.noun.determiner < 0
    return is_bare and old.name == new.name and is_like_described
