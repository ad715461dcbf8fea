"""Find what a caption names: the candidate subjects of Kaleido 3.2 (2).

A caption becomes a sentence of words. The words are walked once through a trie of all names. A name that is
surely a noun is widened to the left into the phrase that grounding searches for: "fluffy grey puppy". What is
denied or only likened is dropped, and names of the same thing are merged.

The rules are shallow on purpose: there is no parser and no model. In doubt a subject is missed rather than
invented, because no later stage removes a box around something that the caption never mentions. Everything
here is pure and works on plain data; `taxonomy.py` reads the files and checks them.
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

NamesByEnd = Mapping[int, NounPhrase]  # names that were found, by where they end


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
    """Names and rules, compiled once. Matching changes nothing in it, and it pickles."""

    def __init__(self, names: NameTrie, rules: MatchRules, adjectives: Adjectives) -> None:
        """Keep what captions are matched with."""
        self._names = names
        self._rules = rules
        self._adjectives = adjectives

    def find_mentions(self, caption: str) -> list[Mention]:
        """What a caption names, in the order of the text; phrases never overlap. Never raises on a string."""
        sentence = Sentence(caption)
        found = self._merge_compounds(sentence, self._scan_words(sentence))
        by_end = {phrase.stop: phrase for phrase in found}
        for phrase in found:
            widen_phrase(phrase, sentence, self._adjectives, by_end)
        shown = [each for each in found if not is_likeness(sentence, each, self._rules.depictions)]
        return merge_mentions(sentence, drop_denied(sentence, shown), self._rules.stand_ins)

    def _scan_words(self, sentence: Sentence) -> list[NounPhrase]:
        """Look for a name at every word, the longest first; the words of a name are not looked at again."""
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
        """Whether a name that may also be a verb, a colour or a pane of glass is the thing here."""
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
        """Whether a bare name that could be a verb stands after a preposition, in a list or as an object."""
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
        # An object right behind its verb: "watering plants", "eats fish".
        is_verb = before.endswith(("ing", "s")) or before in self._adjectives.verbs
        return is_verb and self._is_phrase_end(sentence, phrase.stop)

    def _is_after_proper_name(self, sentence: Sentence, phrase: NounPhrase) -> bool:
        """Whether a plural is the verb of a capitalised name with a hyphen: "Spider-Man swings"."""
        before = phrase.first - 1
        is_hyphened = phrase.left < before and sentence.is_joined(before, HYPHEN)
        capitals = [sentence.text[sentence.words[at].start].isupper() for at in (before, phrase.first)]
        return phrase.is_plural and is_hyphened and capitals == [True, False]

    def _is_listed(self, sentence: Sentence, phrase: NounPhrase, by_end: NamesByEnd) -> bool:
        """Whether a name continues a list of things ("trees and plants"), not of actions ("eats, drinks")."""
        before = sentence.get_key(phrase.left - 1)
        earlier = by_end.get(phrase.left - 1 if before in ("and", "or") else phrase.left)
        if earlier is None or earlier.form.group == HUMAN:
            return False
        is_opening = sentence.is_opening(earlier.find_start(sentence))
        return is_opening or self._is_phrase_end(sentence, phrase.stop)

    def _is_phrase_end(self, sentence: Sentence, stop: int) -> bool:
        """Whether no noun or adjective follows at a word, so that what precedes it is a noun of its own."""
        if stop >= len(sentence) or sentence.words[stop].gap > HYPHEN or sentence.is_possessive(stop - 1):
            return True
        key = sentence.get_key(stop)
        if key in ("and", "or"):
            after = sentence.get_key(stop + 1)
            return after not in self._adjectives.words or after in DETERMINERS
        return key in PREPOSITIONS or key in AUXILIARIES or key in CONJUNCTIONS or key.endswith("ly")

    def _merge_compounds(self, sentence: Sentence, found: Sequence[NounPhrase]) -> list[NounPhrase]:
        """The head noun rule: of two names side by side the first describes the last ("dog bed")."""
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
    """Whether a phrase follows "a", "another", a number or a possessive."""
    determiner = phrase.get_determiner_key(sentence)
    return (
        sentence.is_possessive(phrase.determiner)
        or determiner in SINGULAR_DETERMINERS
        or determiner in POSSESSIVES
        or determiner == "another"
        or determiner in NUMBERS
    )


def _opens_object(sentence: Sentence, stop: int) -> bool:
    """Whether the words after a name read as its object, so that the name is a verb: "watch the dog"."""
    key = sentence.get_key(stop)
    return sentence.is_joined(stop, SPACE) and (key in DETERMINERS or key in OBJECT_OPENERS)


def _is_modifier(form: NameForm, head: NameForm) -> bool:
    """Whether a name right before another is its modifier; not in "behind the man flowers"."""
    if form.category in NEVER_MODIFY:
        return head.group == HUMAN
    return not (form.group == BACKGROUND and head.category in NEVER_MODIFY)
