"""A small grammar of English: its closed word classes, as sets of lower-case keys."""

from __future__ import annotations

from collections.abc import Mapping


def _list_words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The closed word classes of English are small and fixed, so they are code and not data.
SINGULAR_DETERMINERS = _list_words("a an one")
POSSESSIVES = _list_words("my your his her its our their whose")
VAGUE_DETERMINERS = _list_words(
    "some any several many few all each every numerous multiple countless more most various enough"
)
DEFINITE_DETERMINERS = _list_words("the this that these those")
DETERMINERS = (
    _list_words("another either no neither such what which")
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
PREPOSITIONS = _list_words(
    """of in on at with by from into onto over under near behind beside besides between among amongst amid
    against through throughout across along alongside around above below beneath underneath inside outside
    toward towards without within beyond past for like as about up down off out during after before atop via
    per than upon except plus including featuring wearing holding carrying"""
)
CONJUNCTIONS = _list_words("and or nor but while as then so yet")
AUXILIARIES = _list_words(
    """is are was were be been being am has have had do does did can could will would shall should may might
    must to not that who which whom where when there here it he she they we you i him them us me if because
    seems appears looks becomes isn't aren't doesn't don't wasn't weren't"""
)
CLOSED_CLASS_WORDS = DETERMINERS | PREPOSITIONS | CONJUNCTIONS | AUXILIARIES | frozenset(NUMBERS)
# Words that can follow an imperative: "watch how ...".
OBJECT_OPENERS = _list_words("as how what me us him them it your out up")

NEGATORS = _list_words("no not without neither nor never lacking minus sans cannot")
# Verbs that may be between a negator and the negated phrase: "not wearing a hat".
LIGHT_VERBS = _list_words(
    """have has having had wear wearing see seeing show contain hold holding carry carrying include including
    be longer use using"""
)
# Words before "of" that negate the phrase after it.
ABSENCE_WORDS = _list_words("free devoid instead absence empty lack clear bare")
# Adjectives that mean "not the one mentioned before". They prevent that two mentions are merged.
NOT_SAME = _list_words("other another second third fourth next different new extra last")
# Categories that rarely modify things: "hands the woman flowers" names both.
NEVER_MODIFY = _list_words("person man woman boy girl child crowd family")


def parse_number(key: str) -> int | None:
    """Return the value of a number word: "12", "twelve", "dozen"; None: it is no number."""
    if key.isdigit() and len(key) < 4:
        return int(key)
    return NUMBERS.get(key)


def is_negator(key: str) -> bool:
    """Return whether a word negates the words after it: "no", "without", "isn't"."""
    return key in NEGATORS or key.endswith("n't")
