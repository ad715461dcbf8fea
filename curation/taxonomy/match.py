"""Find what a caption names: the candidate subjects of Kaleido 3.2 (2).

A caption is cut into words, the words are walked once through a trie of all names (so the cost does not grow
with the taxonomy), and each name found is widened to the left into the phrase that grounding is asked for:
"fluffy grey puppy". Everything here is pure and works on plain data; `taxonomy.py` reads the files and says
what is wrong with them.

The rules are shallow on purpose: there is no parser and no model. Where a rule has to choose, it prefers to
miss a subject over inventing one, because a later stage cannot take back a box drawn around something the
caption never spoke of.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# A word is letters and digits with their combining marks. The alternatives after it are, in this order, a
# contraction ("isn't"), a possessive ("dog's") and the apostrophe of a plural possessive ("dogs' bowls").
_WORD_PATTERN = re.compile(
    r"(?P<word>[^\W_](?:[^\W_]|[\u0300-\u036f])*)"
    r"(?:(?P<contraction>['\u2019](?:t|re|ve|ll|d|m)\b)|(?P<possessive>['\u2019]s\b)"
    r"|(?<=s)(?P<plural>['\u2019])(?=\s+\w))?",
    re.IGNORECASE,
)
_HYPHEN_PATTERN = re.compile(r"[-\u2010\u2011]")

# How two neighbouring words are joined.
SPACE, HYPHEN, COMMA, BREAK = range(4)


def _parse_words(words: str) -> frozenset[str]:
    return frozenset(words.split())


# The closed classes of English words: too few and too fixed to be data.
SINGULAR_DETERMINERS = _parse_words("a an one")
POSSESSIVES = _parse_words("my your his her its our their whose")
VAGUE_DETERMINERS = _parse_words(
    "some any several many few all each every numerous multiple countless more most various enough"
)
DEFINITE_DETERMINERS = _parse_words("the this that these those")
DETERMINERS = (
    _parse_words("another either no neither such what which")
    | DEFINITE_DETERMINERS
    | SINGULAR_DETERMINERS
    | POSSESSIVES
    | VAGUE_DETERMINERS
)
_TO_TWENTY = """one two three four five six seven eight nine ten eleven twelve
    thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"""
NUMBERS: Mapping[str, int] = {
    **{word: number for number, word in enumerate(_TO_TWENTY.split(), start=1)},
    "both": 2,
    "dozen": 12,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "hundred": 100,
    "thousand": 1000,
}
# Nouns that count what follows their "of": "a pair of dogs", "a trio of cats".
COUNTING_NOUNS: Mapping[str, int] = {"pair": 2, "pairs": 2, "couple": 2, "duo": 2, "trio": 3, "quartet": 4}
PREPOSITIONS = _parse_words(
    """of in on at with by from into onto over under near behind beside besides between among amongst amid
    against through throughout across along alongside around above below beneath underneath inside outside
    toward towards without within beyond past for like as about up down off out during after before atop via
    per than upon except plus including featuring wearing holding carrying"""
)
CONJUNCTIONS = _parse_words("and or nor but while as then so yet")
AUXILIARIES = _parse_words(
    """is are was were be been being am has have had do does did can could will would shall should may might
    must to not that who which whom where when there here it he she they we you i him them us me if because
    seems appears looks becomes isn't aren't doesn't don't wasn't weren't"""
)
CLOSED_CLASS_WORDS = DETERMINERS | PREPOSITIONS | CONJUNCTIONS | AUXILIARIES | frozenset(NUMBERS)
# What an imperative takes: "watch how ...".
OBJECT_OPENERS = _parse_words("as how what me us him them it your out up")

NEGATORS = _parse_words("no not without neither nor never lacking minus sans cannot")
# Verbs that may stand between a negator and what it negates: "not wearing a hat".
LIGHT_VERBS = _parse_words(
    """have has having had wear wearing see seeing show contain hold holding carry carrying include including
    be longer use using"""
)
# Words before "of" that take away what follows it.
ABSENCE_WORDS = _parse_words("free devoid instead absence empty lack clear bare")
# Adjectives that say "not the one spoken of before": they forbid merging two mentions.
NOT_SAME = _parse_words("other another second third fourth next different new extra last")
# People are seldom modifiers of things: in "hands the woman flowers" both are meant. Labels of categories.
NEVER_MODIFY = _parse_words("person man woman boy girl child crowd family")
MAX_MODIFIERS = (
    12  # units before a noun that are looked at; no honest phrase has more, and it bounds the work
)
MAX_UNKNOWN = 2  # unknown words allowed between a determiner and a name


@dataclass(frozen=True)
class Mention:
    """One thing a caption names.

    category, group: where the name stands in the taxonomy.
    name:            the taxonomy's own form of the word that matched (singular, lower case): "puppy".
    phrase:          the noun with its adjectives, as written and without its determiner: "fluffy grey puppy".
    start, end:      characters of the caption, so that caption[start:end] == phrase.
    count:           how many: "three red cups" 3, "a cup" 1, "the dog" 1; None if a plural does not say.
    """

    category: str
    group: str
    name: str
    phrase: str
    start: int
    end: int
    count: int | None


@dataclass(frozen=True)
class NameForm:
    """A form of a name as the trie holds it. `singular` and `plural` are both true for "sheep"."""

    name: str
    category: str
    group: str
    singular: bool = True
    plural: bool = False
    plural_only: bool = False


@dataclass(frozen=True)
class StandIn:
    """An adjective that makes another thing of its noun: what it becomes, and in which groups."""

    entry: NameForm
    groups: frozenset[str]


@dataclass(frozen=True)
class MatchRules:
    """The taxonomy's guards, as sets of keys (see docs/taxonomy.md for each)."""

    verbs: frozenset[str] = frozenset()
    modifiers: frozenset[str] = frozenset()
    indefinite: frozenset[str] = frozenset()
    heads: frozenset[str] = frozenset()
    depictions: frozenset[str] = frozenset()
    stand_ins: Mapping[str, StandIn] = field(default_factory=dict)


@dataclass(frozen=True)
class Adjectives:
    """The describing words: all of them, and the subsets treated apart."""

    words: frozenset[str] = frozenset()
    also_verbs: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    phrase_ends: frozenset[str] = frozenset()


@dataclass(slots=True)
class Word:
    """A word of a caption: `key` is how it is compared, `gap` what is between it and the word before.

    `start`, `end`: its characters; `end` is before the mark of a possessive.
    """

    key: str
    start: int
    end: int
    gap: int
    possessive: bool


def normalize_word(word: str) -> str:
    """How words are compared: without case and accents ("Café" is "cafe"), full-width letters made narrow.

    May be empty for letters that are only marks.
    """
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def split_words(text: str) -> list[Word]:
    """Cut any text into words. Never raises; text without letters gives an empty list."""
    words: list[Word] = []
    previous_end = 0
    for found in _WORD_PATTERN.finditer(text):
        start, end = found.span("word")
        between = text[previous_end:start]
        if not words:
            gap = BREAK
        elif between.isspace() and between.count("\n") < 2:
            gap = SPACE
        elif len(between) == 1 and _HYPHEN_PATTERN.match(between):
            gap = HYPHEN
        elif between.strip() == ",":
            gap = COMMA
        else:
            gap = BREAK
        key = normalize_word(text[start:end])
        if found["contraction"]:
            end = found.end()
            key += found["contraction"].lower().replace("\u2019", "'")
        possessive = bool(found["possessive"] or found["plural"])
        words.append(Word(key, start, end, gap, possessive))
        previous_end = found.end()
    return words


def make_key(name: str) -> tuple[str, ...]:
    """The words of a name as the trie stores them; a possessive keeps its mark: ("bird's", "eye", "view")."""
    return tuple(word.key + "'s" if word.possessive else word.key for word in split_words(name))


@dataclass(slots=True)
class _NameMatch:
    """A name found at words[first:stop], before and after widening."""

    entry: NameForm
    first: int
    stop: int
    plural: bool
    chain: int = field(
        init=False
    )  # where names that only describe it begin ("dog" in "dog bed"), else `first`
    left: int = 0  # first word of the phrase
    bound: int = -1  # the determiner's or number's index, -1 if there is none

    def __post_init__(self) -> None:
        self.chain = self.first


class Matcher:
    """Names and rules, compiled once. `match` changes nothing in it, and it pickles."""

    def __init__(
        self,
        forms: Iterable[tuple[str, NameForm]],
        never: Iterable[str],
        rules: MatchRules,
        adjectives: Adjectives,
    ) -> None:
        """`forms`: (written form, entry) pairs, plurals included. `never`: phrases that mean no subject."""
        self._trie: dict[str, Any] = {}
        for form, entry in forms:
            self._add_form(form, entry)
        for phrase in never:
            self._add_form(phrase, None)
        self._rules = rules
        self._adjectives = adjectives

    def _add_form(self, form: str, entry: NameForm | None) -> None:
        node = self._trie
        for key in make_key(form):
            node = node.setdefault(key, {})
        node[""] = entry  # no word is empty, so "" cannot collide; None marks a phrase that means nothing

    def find_mentions(self, caption: str) -> list[Mention]:
        """What `caption` names, in the order of the text; phrases never overlap. Never raises on a string."""
        words = split_words(caption)
        found = self._merge_compounds(words, self._scan_words(words))
        ends = {item.stop: item for item in found}
        for item in found:
            self._widen_phrase(words, item, ends)
        found = [item for item in found if not self._is_likeness(words, item)]
        found = self._drop_denied(words, found)
        return self._merge_mentions(caption, words, found)

    # --- finding ----------------------------------------------------------------------------------

    def _scan_words(self, words: Sequence[Word]) -> list[_NameMatch]:
        """Walk the trie from every word, longest name first; what a name covers is not looked at again."""
        ends: dict[int, _NameMatch] = {}  # what has been found, in text order, by where it ends
        position = 0
        while position < len(words):
            taken = position
            for stop, entry in self._list_names_at(words, position):
                if entry is None:
                    taken = stop
                    break
                item = _NameMatch(entry, position, stop, entry.plural and not entry.singular)
                self._widen_phrase(words, item, ends)
                if self._is_noun(words, item, ends):
                    ends[stop] = item
                    taken = stop
                    break
            position = max(taken, position + 1)
        return list(ends.values())

    def _list_names_at(self, words: Sequence[Word], first: int) -> list[tuple[int, NameForm | None]]:
        """All names that start at words[first], longest first, as (stop, entry); hyphened words stay one."""
        ends: list[tuple[int, NameForm | None]] = []
        if words[first].gap == HYPHEN:
            return ends
        node: dict[str, Any] = self._trie
        for position in range(first, len(words)):
            word = words[position]
            if position > first and word.gap > HYPHEN:
                break
            cuts_hyphen = position + 1 < len(words) and words[position + 1].gap == HYPHEN
            child = node.get(word.key)
            if child is not None and "" in child and not cuts_hyphen:
                ends.append((position + 1, child[""]))
            if word.possessive:
                # The possessor's name ends here ("dog's"), unless the whole is a name: "bird's nest".
                child = node.get(word.key + "'s")
            if child is None:
                break
            node = child
        ends.reverse()
        return ends

    def _is_noun(self, words: Sequence[Word], item: _NameMatch, ends: Mapping[int, _NameMatch]) -> bool:
        """Whether a name that may also be a verb, a colour or a pane of glass is the thing here."""
        name, rules = item.entry.name, self._rules
        if name not in rules.verbs and name not in rules.modifiers and name not in rules.indefinite:
            return True
        determiner = words[item.bound].key if item.bound >= 0 else ""
        firmly = item.bound >= 0 and (determiner != "that" or item.left > item.bound + 1)
        if name in rules.indefinite and not item.plural:
            owned = item.bound >= 0 and words[item.bound].possessive
            if not (
                owned
                or determiner in SINGULAR_DETERMINERS
                or determiner in POSSESSIVES
                or determiner == "another"
                or determiner in NUMBERS
            ):
                return False
        if (
            name in rules.modifiers
            and not item.plural
            and not (firmly and self._is_phrase_end(words, item.stop))
        ):
            return False
        if name not in rules.verbs:
            return True
        if firmly and not (item.plural and determiner in SINGULAR_DETERMINERS):
            return True
        return self._is_weak_noun(words, item, ends)

    def _is_weak_noun(self, words: Sequence[Word], item: _NameMatch, ends: Mapping[int, _NameMatch]) -> bool:
        """A bare name that could be a verb: a noun after a preposition, in a list, or as a verb's object."""
        left = item.left
        opens_object = (
            item.stop < len(words)
            and words[item.stop].gap == SPACE
            and (words[item.stop].key in DETERMINERS or words[item.stop].key in OBJECT_OPENERS)
        )
        if left == 0 or words[left].gap == BREAK:
            return (
                not opens_object
            )  # a sentence that starts with the word: "Flowers sway", but "Watch the dog"
        before = words[left - 1]
        ending_here = ends.get(left)
        if words[left].gap == SPACE and before.possessive:
            return True
        if words[left].gap == SPACE and ending_here is not None and left == item.first:
            # "a toy train" but not "a man trains", "two women cook".
            human = ending_here.entry.category in NEVER_MODIFY or ending_here.entry.group == "human"
            return not item.plural and not ending_here.plural and not human and ending_here.bound >= 0
        if before.key in PREPOSITIONS:
            return not opens_object
        if before.key in ("and", "or") or words[left].gap == COMMA:
            # In a list of things ("trees and plants"), not of actions ("eats and drinks"), without object.
            listed = left - 1 if before.key in ("and", "or") else left
            earlier = ends.get(listed)
            if earlier is None or earlier.entry.group == "human" or opens_object:
                return False
            opening = self._find_phrase_start(words, earlier)
            return opening == 0 or words[opening].gap == BREAK or self._is_phrase_end(words, item.stop)
        if before.key in AUXILIARIES or ending_here is not None:
            return False
        if left < item.first:
            return not opens_object  # "eats fresh fish"
        # An object right behind its verb: "watering plants", "eats fish".
        verb = before.key.endswith(("ing", "s")) or before.key in self._adjectives.verbs
        return verb and self._is_phrase_end(words, item.stop)

    def _is_phrase_end(self, words: Sequence[Word], stop: int) -> bool:
        """Whether no noun or adjective follows at words[stop], so that what precedes is a noun of its own."""
        if stop >= len(words) or words[stop].gap > HYPHEN or words[stop - 1].possessive:
            return True
        key = words[stop].key
        if key in ("and", "or"):
            after = words[stop + 1].key if stop + 1 < len(words) else ""
            return after not in self._adjectives.words or after in DETERMINERS
        return key in PREPOSITIONS or key in AUXILIARIES or key in CONJUNCTIONS or key.endswith("ly")

    def _merge_compounds(self, words: Sequence[Word], found: Sequence[_NameMatch]) -> list[_NameMatch]:
        """The head noun rule: of two names side by side the first describes the last ("dog bed")."""
        kept: list[_NameMatch] = []
        ends = {item.stop: item for item in found}
        for index, item in enumerate(found):
            following = found[index + 1] if index + 1 < len(found) else None
            at_end = item.stop >= len(words) or words[item.stop].gap != SPACE
            if item.plural or item.entry.plural_only or words[item.stop - 1].possessive or at_end:
                kept.append(item)
            elif following is not None and following.first == item.stop:
                if _is_modifier(item.entry, following.entry):
                    following.chain = item.chain
                else:
                    kept.append(item)
            elif words[item.stop].key not in self._rules.heads or item.entry.group == "human":
                kept.append(item)  # people act: in "a man and a woman race" the race is a verb
            else:
                self._widen_phrase(words, item, ends)
                start = self._find_phrase_start(words, item)
                if start > 0 and words[start - 1].key == "and":
                    kept.append(item)  # "a cat and a dog fight"
        return kept

    # --- widening ---------------------------------------------------------------------------------

    def _widen_phrase(
        self, words: Sequence[Word], item: _NameMatch, names_end: Mapping[int, _NameMatch]
    ) -> None:
        """Set `left` and `bound`: the adjectives before the name, and the determiner before them."""
        adjectives = self._adjectives
        taken: list[tuple[int, str]] = []  # (index of the unit's first word, what let it in), nearest first
        at = item.chain
        while at > 0 and len(taken) < MAX_MODIFIERS:
            gap, before = words[at].gap, words[at - 1]
            if gap == BREAK or before.possessive or at in names_end:
                break
            joined = gap == COMMA or before.key == "and"
            if joined:
                # "brown and white dog", "a big, red dog": only between two plain adjectives.
                other = at - 1 if gap == COMMA else at - 2
                last = taken[-1][1] if taken else ""
                spaced = gap == COMMA or words[at - 1].gap in (SPACE, COMMA)
                if (
                    other < 0
                    or other + 1 in names_end
                    or last not in ("sure", "joined")
                    or not spaced
                    or gap == HYPHEN
                ):
                    break
                if words[other].key not in adjectives.words or words[other].possessive:
                    break
                if (
                    gap != COMMA
                    and words[other].key in adjectives.also_verbs
                    and other > 0
                    and words[other - 1].key not in CLOSED_CLASS_WORDS | adjectives.words
                ):
                    break
                taken.append((other, "joined"))
                at = other
                continue
            first = at - 1
            while first > 0 and words[first].gap == HYPHEN:
                first -= 1
            kind = self._classify_modifier(words, first, at, bool(taken))
            if not kind:
                break
            taken.append((first, kind))
            at = first
        item.left, item.bound = self._trim_modifiers(words, item, taken, names_end)

    def _classify_modifier(self, words: Sequence[Word], first: int, stop: int, before_adjective: bool) -> str:
        """What words[first:stop] (one word, or several with hyphens) is before a noun; "" ends the phrase."""
        adjectives = self._adjectives
        key = words[first].key
        if stop - first > 1:
            joined = "-".join(word.key for word in words[first:stop])
            if joined in adjectives.words:
                return "sure"
            if (
                joined in NUMBERS
                or words[stop - 1].key in CLOSED_CLASS_WORDS
                or any(word.possessive for word in words[first:stop])
            ):
                return ""
            return "hyphened"
        if words[first].gap == HYPHEN:
            return ""
        following = words[stop].key if before_adjective else ""
        if following in ("year", "years") and _parse_number(key) is not None:
            return "sure"  # "a 10 year old boy" is no ten boys
        if key in adjectives.also_verbs:
            return "participle"
        if key in adjectives.words or (key in ("year", "years") and following == "old"):
            return "sure"
        if (
            key in CLOSED_CLASS_WORDS
            or key in adjectives.verbs
            or key in adjectives.phrase_ends
            or "'" in key
        ):
            return ""
        if key.isdigit() and len(key) < 4:
            return ""
        if key.endswith("ly"):
            return "adverb" if before_adjective else "unknown"
        if key.endswith("ing"):
            return "ing"
        if key.endswith(("ed", "ish")) or (key.endswith("y") and len(key) > 3):
            return "participle"
        if key.endswith("s") and not key.endswith(("ss", "less", "ous")):
            return ""  # "the stranger walks dogs": a verb far oftener than an adjective
        return "unknown"

    def _trim_modifiers(
        self,
        words: Sequence[Word],
        item: _NameMatch,
        taken: Sequence[tuple[int, str]],
        names_end: Mapping[int, _NameMatch],
    ) -> tuple[int, int]:
        """How much of `taken` to keep: all of it behind a determiner, only what is certain otherwise."""
        for keep in range(len(taken), -1, -1):
            left = taken[keep - 1][0] if keep else item.chain
            bound = self._find_bound(words, left, item)
            if bound >= 0:
                if _is_description([kind for _, kind in taken[:keep]]):
                    return left, bound
                continue
            # Nothing before it says where the phrase starts, so every doubtful word at its left end goes.
            if not keep:
                break
            kind = taken[keep - 1][1]
            if any(other in ("unknown", "ing", "adverb") for _, other in taken[:keep]):
                continue
            if kind == "joined" and left > 0 and words[left - 1].key in AUXILIARIES:
                continue  # "the sky is blue and green trees sway"
            if kind in ("sure", "joined", "hyphened"):
                return left, -1
            at_start = left == 0 or words[left].gap in (BREAK, COMMA)
            introduced = left > 0 and left not in names_end and words[left - 1].key in PREPOSITIONS | {"and"}
            if kind == "participle" and (at_start or introduced):
                return left, -1
        return item.chain, self._find_bound(words, item.chain, item)

    def _find_bound(self, words: Sequence[Word], left: int, item: _NameMatch) -> int:
        """Index of the determiner, number or possessor right before words[left], or -1."""
        if left == 0 or words[left].gap not in (SPACE, COMMA):
            return -1
        before = words[left - 1]
        if before.possessive:
            return left - 1 if words[left].gap == SPACE else -1
        if words[left].gap != SPACE:
            return -1
        number = _parse_number(before.key)
        if number is not None and number > 1:
            return left - 1 if item.entry.plural else -1
        if before.key in ("a", "an") and item.plural:
            return -1  # "a stranger walks dogs": that "a" is not theirs
        return left - 1 if number is not None or before.key in DETERMINERS else -1

    # --- judging ----------------------------------------------------------------------------------

    def _find_phrase_start(self, words: Sequence[Word], item: _NameMatch) -> int:
        """Index of the first word of the whole noun phrase, determiners included ("all the three dogs")."""
        start = item.bound if item.bound >= 0 else item.left
        while (
            start > 0
            and words[start].gap == SPACE
            and not words[start - 1].possessive
            and (words[start - 1].key in DETERMINERS or words[start - 1].key in NUMBERS)
        ):
            start -= 1
        return start

    def _is_likeness(self, words: Sequence[Word], item: _NameMatch) -> bool:
        """Whether it is only a likeness: "a statue of a horse", "moves like a cat", "dressed as a bear"."""
        start = self._find_phrase_start(words, item)
        if start == 0 or words[start].gap != SPACE:
            return False
        before, earlier = words[start - 1].key, words[start - 2].key if start > 1 else ""
        if before == "of":
            return earlier in self._rules.depictions
        if before == "like":
            return item.bound >= 0 and words[item.bound].key in ("a", "an")
        return (
            before == "as" and earlier in ("dressed", "disguised", "costumed") and item.entry.group != "human"
        )

    def _drop_denied(self, words: Sequence[Word], found: Sequence[_NameMatch]) -> list[_NameMatch]:
        """Drop what the caption says is absent: "no dog", "without a hat or gloves", "not wearing a hat"."""
        kept: list[_NameMatch] = []
        chain_stop = -1  # where a denied phrase ended: an "or" there carries the denial on
        for item in found:
            start = self._find_phrase_start(words, item)
            denied = self._is_denied(words, start, item)
            if not denied and chain_stop >= 0:
                between = [word.key for word in words[chain_stop:start]]
                bare_in_list = (
                    not between
                    and words[start].gap == COMMA
                    and item.bound < 0
                    and any(word.key in ("or", "nor") for word in words[item.stop : item.stop + 2])
                )
                denied = between in (["or"], ["nor"]) or bare_in_list
            chain_stop = item.stop if denied else -1
            if not denied:
                kept.append(item)
        return kept

    def _is_denied(self, words: Sequence[Word], start: int, item: _NameMatch) -> bool:
        """Whether the words before the phrase, which begins at words[start] with its determiners, deny it."""
        if any(word.key in ("no", "neither") for word in words[start : item.left]):
            return True
        if start == 0 or words[start].gap != SPACE:
            return False
        before = words[start - 1].key
        if before in NEGATORS or before.endswith("n't"):
            return True
        if before == "of":
            return start > 1 and words[start - 2].key in ABSENCE_WORDS
        at = start - 1
        while at > 0 and words[at].gap == SPACE and words[at].key in LIGHT_VERBS:
            at -= 1
            if words[at].key in NEGATORS or words[at].key.endswith("n't"):
                return True
        return False

    def _count_items(self, words: Sequence[Word], item: _NameMatch) -> int | None:
        """How many the phrase speaks of; None where it does not say."""
        bound = item.bound
        determiner = "" if bound < 0 or words[bound].possessive else words[bound].key
        number = _parse_number(determiner)
        if number is not None and determiner != "one":
            hyphened = bound > 0 and words[bound].gap == HYPHEN
            ranged = bound > 0 and words[bound - 1].key in ("or", "to", "than") and words[bound].gap == SPACE
            multiplied = bound > 0 and words[bound - 1].key in NUMBERS and words[bound].gap == SPACE
            if hyphened or ranged or multiplied:
                return None
            return number if number != 1 or item.entry.singular else None
        certainly_one = determiner in SINGULAR_DETERMINERS or determiner in ("this", "another")
        if certainly_one and not item.entry.plural_only:
            return 1
        if determiner in VAGUE_DETERMINERS:
            return (
                1
                if item.entry.singular and not item.entry.plural and determiner not in ("each", "every")
                else None
            )
        start = self._find_phrase_start(words, item)
        if start > 1 and words[start - 1].key == "of" and words[start - 2].key in COUNTING_NOUNS:
            unit = 1 if item.entry.plural_only else COUNTING_NOUNS[words[start - 2].key]
            times = _parse_number(words[start - 3].key) if start > 2 else None
            return unit * (times if times is not None else 1)
        return 1 if item.entry.singular and not item.entry.plural else None

    def _merge_mentions(
        self, caption: str, words: Sequence[Word], found: Sequence[_NameMatch]
    ) -> list[Mention]:
        """Mentions in order, with "a fluffy dog ... the dog" told once, in its fullest form."""
        mentions_by_category: dict[str, list[tuple[Mention, _NameMatch, frozenset[str]]]] = {}
        for item in found:
            described = frozenset(word.key for word in words[item.left : item.first]) - {"and"}
            start, end = words[item.left].start, words[item.stop - 1].end
            entry = self._apply_stand_in(item.entry, described)
            mention = Mention(
                entry.category,
                entry.group,
                entry.name,
                caption[start:end],
                start,
                end,
                self._count_items(words, item),
            )
            kept = mentions_by_category.setdefault(entry.category, [])
            for index in range(len(kept) - 1, -1, -1):
                earlier, earlier_item, earlier_described = kept[index]
                if not self._is_same_subject(
                    words, earlier, earlier_item, earlier_described, mention, item, described
                ):
                    continue
                if len(described) > len(earlier_described):
                    count = earlier.count if earlier.count is not None else mention.count
                    kept[index] = (replace(mention, count=count), item, described)
                break
            else:
                kept.append((mention, item, described))
        mentions = [mention for kept in mentions_by_category.values() for mention, _, _ in kept]
        return sorted(mentions, key=lambda mention: mention.start)

    def _apply_stand_in(self, entry: NameForm, described: frozenset[str]) -> NameForm:
        for word in described & self._rules.stand_ins.keys():
            stand_in = self._rules.stand_ins[word]
            if entry.group in stand_in.groups:
                return stand_in.entry
        return entry

    def _is_same_subject(
        self,
        words: Sequence[Word],
        earlier: Mention,
        earlier_item: _NameMatch,
        earlier_described: frozenset[str],
        later: Mention,
        item: _NameMatch,
        described: frozenset[str],
    ) -> bool:
        """Whether `later`, of the same category, plainly speaks of `earlier` again; in doubt it does not."""
        if earlier.name != later.name and later.category not in (earlier.name, later.name):
            return False  # "a poodle ... the labrador"; but "a puppy ... the dog" is one
        if described & NOT_SAME or not (described <= earlier_described or earlier_described <= described):
            return False
        if earlier_item.plural != item.plural:
            return False
        counts_agree = later.count is None or earlier.count is None or later.count == earlier.count
        determiner = "" if item.bound < 0 else words[item.bound].key
        if item.bound >= 0 and (words[item.bound].possessive or determiner in POSSESSIVES):
            same_owner = earlier_item.bound >= 0 and words[earlier_item.bound].key == determiner
            return same_owner and described == earlier_described and counts_agree
        if determiner in DEFINITE_DETERMINERS:
            return counts_agree
        if item.bound >= 0 and item.bound > 0 and words[item.bound - 1].key in DEFINITE_DETERMINERS:
            return counts_agree  # "the three cups"
        # No determiner at all: "on grass ... on the grass", "people ... people".
        bare = item.bound < 0 and earlier_item.bound < 0
        return bare and earlier.name == later.name and described == earlier_described


def _is_modifier(entry: NameForm, head: NameForm) -> bool:
    """Whether a name right before another is its modifier; not in "behind the man flowers"."""
    if entry.category in NEVER_MODIFY:
        return head.group == "human"
    return not (entry.group == "background" and head.category in NEVER_MODIFY)


def _is_description(kinds: Sequence[str]) -> bool:
    """Whether words between a determiner and a name (nearest first) read as its description.

    An unknown word left of a participle is more likely a subject and its verb: "the stranger petted dogs".
    """
    unknown = [index for index, kind in enumerate(kinds) if kind == "unknown"]
    if len(unknown) > MAX_UNKNOWN:
        return False
    return all(kind not in ("participle", "ing") for kind in kinds[: max(unknown, default=0)])


def _parse_number(key: str) -> int | None:
    if key.isdigit() and len(key) < 4:
        return int(key)
    return NUMBERS.get(key)
