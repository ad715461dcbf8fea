"""Find the candidate subjects in a caption (Kaleido 3.2 (2)).

A caption is split into words. One pass over the words finds names in a trie. A name that is surely a noun is
extended to the left to the phrase that grounding searches for: "fluffy grey puppy". Negated and compared
names are dropped, and names of the same thing are merged.

The rules are simple by design: there is no parser and no model. In doubt, a subject is missed and not
invented, because no later stage removes a box around something that the caption does not mention. All
functions are pure and work on plain data; `taxonomy.py` reads and checks the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curation.rows.groups import BACKGROUND, HUMAN
from curation.taxonomy.absence import drop_denied, is_likeness
from curation.taxonomy.grammar import (
    AUXILIARIES,
    CONJUNCTIONS,
    DETERMINERS,
    NEVER_MODIFY,
    NUMBERS,
    OBJECT_OPENERS,
    POSSESSIVES,
    PREPOSITIONS,
    SINGULAR_DETERMINERS,
)
from curation.taxonomy.mentions import Mention, StandIn, merge_mentions
from curation.taxonomy.names import NameForm, NameTrie
from curation.taxonomy.phrase import Adjectives, NounPhrase, widen_phrase
from curation.taxonomy.sentence import COMMA, HYPHEN, SPACE, Sentence

NamesByEnd = Mapping[int, NounPhrase]  # found names, by the position of their end


@dataclass(frozen=True)
class MatchRules:
    """The guards of a taxonomy, as sets of keys (see docs/taxonomy.md for each)."""

    verbs: frozenset[str] = frozenset()
    modifiers: frozenset[str] = frozenset()
    indefinite: frozenset[str] = frozenset()
    heads: frozenset[str] = frozenset()
    depictions: frozenset[str] = frozenset()
    stand_ins: Mapping[str, StandIn] = field(default_factory=dict)


class Matcher:
    """Names and rules, compiled once. It is immutable and can be pickled."""

    def __init__(self, names: NameTrie, rules: MatchRules, adjectives: Adjectives) -> None:
        """Store the names, rules and adjectives."""
        self._names = names
        self._rules = rules
        self._adjectives = adjectives

    def find_mentions(self, caption: str) -> list[Mention]:
        """Find the subjects that a caption names, in text order, without overlaps.

        It never raises on a string.
        """
        sentence = Sentence(caption)
        found = self._merge_compounds(sentence, self._scan_words(sentence))
        by_end = {phrase.stop: phrase for phrase in found}
        for phrase in found:
            widen_phrase(phrase, sentence, self._adjectives, by_end)
        shown = [each for each in found if not is_likeness(sentence, each, self._rules.depictions)]
        return merge_mentions(sentence, drop_denied(sentence, shown), self._rules.stand_ins)

    def _scan_words(self, sentence: Sentence) -> list[NounPhrase]:
        """Search a name at every word, the longest first. The search continues after the words of a name."""
        by_end: dict[int, NounPhrase] = {}  # in text order
        position = 0
        while position < len(sentence):
            next_position = position + 1
            for stop, form in self._names.list_names_at(sentence, position):
                if form is None:
                    next_position = stop
                    break
                phrase = NounPhrase(form, position, stop)
                widen_phrase(phrase, sentence, self._adjectives, by_end)
                if self._is_noun(sentence, phrase, by_end):
                    by_end[stop] = phrase
                    next_position = stop
                    break
            position = next_position
        return list(by_end.values())

    def _is_noun(self, sentence: Sentence, phrase: NounPhrase, by_end: NamesByEnd) -> bool:
        """Return whether a name that may also be a verb, a colour or a material is a noun here."""
        name, rules = phrase.form.name, self._rules
        determiner = phrase.get_determiner_key(sentence)
        has_determiner = phrase.determiner >= 0
        # "that" alone may open a clause: "the man that watches".
        is_firm = has_determiner and (determiner != "that" or phrase.left > phrase.determiner + 1)
        if name in rules.indefinite and not phrase.is_plural and not _is_indefinite(sentence, phrase):
            return False
        is_doubtful = name in rules.modifiers and not phrase.is_plural
        if is_doubtful and not (is_firm and self._is_phrase_end(sentence, phrase.stop)):
            return False
        if name not in rules.verbs:
            return True
        if is_firm and not (phrase.is_plural and determiner in SINGULAR_DETERMINERS):
            return True
        return self._is_noun_by_place(sentence, phrase, by_end)

    def _is_noun_by_place(self, sentence: Sentence, phrase: NounPhrase, by_end: NamesByEnd) -> bool:
        """Return whether a name that could be a verb follows a preposition, is in a list or is an object."""
        left = phrase.left
        opens_object = _opens_object(sentence, phrase.stop)
        if self._is_after_proper_name(sentence, phrase):
            return False
        if sentence.is_opening(left):
            return not opens_object  # "Flowers sway", but "Watch the dog"
        is_spaced, before = sentence.is_joined(left, SPACE), sentence.get_key(left - 1)
        name_before = by_end.get(left)
        if is_spaced and sentence.is_possessive(left - 1):
            return True
        if is_spaced and name_before is not None and left == phrase.first:
            # "a toy train" but not "a man trains", "two women cook".
            is_human = name_before.form.category in NEVER_MODIFY or name_before.form.group == HUMAN
            has_plural = phrase.is_plural or name_before.is_plural
            return not has_plural and not is_human and name_before.determiner >= 0
        if before in PREPOSITIONS:
            return not opens_object
        if before in ("and", "or") or sentence.is_joined(left, COMMA):
            return not opens_object and self._is_listed(sentence, phrase, by_end)
        if before in AUXILIARIES or name_before is not None:
            return False
        if left < phrase.first:
            return not opens_object  # "eats fresh fish"
        # An object directly after its verb: "watering plants", "eats fish".
        is_verb = before.endswith(("ing", "s")) or before in self._adjectives.verbs
        return is_verb and self._is_phrase_end(sentence, phrase.stop)

    def _is_after_proper_name(self, sentence: Sentence, phrase: NounPhrase) -> bool:
        """Whether a plural is the verb of a capitalised name with a hyphen: "Spider-Man swings"."""
        before = phrase.first - 1
        is_hyphened = phrase.left < before and sentence.is_joined(before, HYPHEN)
        capitals = [sentence.text[sentence.words[at].start].isupper() for at in (before, phrase.first)]
        return phrase.is_plural and is_hyphened and capitals == [True, False]

    def _is_listed(self, sentence: Sentence, phrase: NounPhrase, by_end: NamesByEnd) -> bool:
        """Return whether a name continues a list of things ("trees and plants"), not of actions."""
        before = sentence.get_key(phrase.left - 1)
        earlier = by_end.get(phrase.left - 1 if before in ("and", "or") else phrase.left)
        if earlier is None or earlier.form.group == HUMAN:
            return False
        is_opening = sentence.is_opening(earlier.find_start(sentence))
        return is_opening or self._is_phrase_end(sentence, phrase.stop)

    def _is_phrase_end(self, sentence: Sentence, stop: int) -> bool:
        """Return whether no noun or adjective is at a word, so that the noun before it ends its phrase."""
        if stop >= len(sentence) or sentence.words[stop].gap > HYPHEN or sentence.is_possessive(stop - 1):
            return True
        key = sentence.get_key(stop)
        if key in ("and", "or"):
            after = sentence.get_key(stop + 1)
            return after not in self._adjectives.words or after in DETERMINERS
        return key in PREPOSITIONS or key in AUXILIARIES or key in CONJUNCTIONS or key.endswith("ly")

    def _merge_compounds(self, sentence: Sentence, found: Sequence[NounPhrase]) -> list[NounPhrase]:
        """Apply the head noun rule: the first of two adjacent names describes the last ("dog bed")."""
        kept: list[NounPhrase] = []
        by_end = {phrase.stop: phrase for phrase in found}
        for index, phrase in enumerate(found):
            following = found[index + 1] if index + 1 < len(found) else None
            form, stop = phrase.form, phrase.stop
            is_free = phrase.is_plural or form.plural_only or sentence.is_possessive(stop - 1)
            if is_free or not sentence.is_joined(stop, SPACE):
                kept.append(phrase)
            elif following is not None and following.first == stop:
                if _is_modifier(form, following.form):
                    following.compound_first = phrase.compound_first
                else:
                    kept.append(phrase)
            elif sentence.get_key(stop) not in self._rules.heads or form.group == HUMAN:
                kept.append(phrase)  # people act: in "a man and a woman race" the race is a verb
            else:
                widen_phrase(phrase, sentence, self._adjectives, by_end)
                if sentence.get_key(phrase.find_start(sentence) - 1) == "and":
                    kept.append(phrase)  # "a cat and a dog fight"
        return kept


def _is_indefinite(sentence: Sentence, phrase: NounPhrase) -> bool:
    """Return whether a phrase follows "a", "another", a number or a possessive."""
    determiner = phrase.get_determiner_key(sentence)
    return (
        sentence.is_possessive(phrase.determiner)
        or determiner in SINGULAR_DETERMINERS
        or determiner in POSSESSIVES
        or determiner == "another"
        or determiner in NUMBERS
    )


def _opens_object(sentence: Sentence, stop: int) -> bool:
    """Return whether the words after a name are its object, so that the name is a verb: "watch the dog"."""
    key = sentence.get_key(stop)
    return sentence.is_joined(stop, SPACE) and (key in DETERMINERS or key in OBJECT_OPENERS)


def _is_modifier(form: NameForm, head: NameForm) -> bool:
    """Return whether a name directly before another one modifies it; false in "behind the man flowers"."""
    if form.category in NEVER_MODIFY:
        return head.group == HUMAN
    return not (form.group == BACKGROUND and head.category in NEVER_MODIFY)
