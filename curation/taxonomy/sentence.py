"""A caption as a sentence: its words, the gaps between them, and their positions in the text."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from curation.taxonomy.grammar import DETERMINERS, NUMBERS

# A word is letters and digits with their combining marks. The alternatives after it are, in this order, a
# contraction ("isn't"), a possessive ("dog's") and the apostrophe of a plural possessive ("dogs' bowls").
_WORD_PATTERN = re.compile(
    r"(?P<word>[^\W_](?:[^\W_]|[\u0300-\u036f])*)"
    r"(?:(?P<contraction>['\u2019](?:t|re|ve|ll|d|m)\b)|(?P<possessive>['\u2019]s\b)"
    r"|(?<=s)(?P<plural>['\u2019])(?=\s+\w))?",
    re.IGNORECASE,
)
_HYPHEN_PATTERN = re.compile(r"[-\u2010\u2011]")

# The gap between a word and the word before it, from the closest to the loosest.
SPACE, HYPHEN, COMMA, BREAK = range(4)


@dataclass(slots=True)
class Word:
    """A word of a caption.

    Attributes:
        key: its form for comparisons.
        start: position of its first character in the text.
        end: position after its last character, without the mark of a possessive.
        gap: the gap before it: `SPACE`, `HYPHEN`, `COMMA` or `BREAK`.
        possessive: whether it ends in "'s" or is a plural with an apostrophe.
    """

    key: str
    start: int
    end: int
    gap: int
    possessive: bool


def normalize_word(word: str) -> str:
    """Return the key of a word: lower case, without accents ("Café" is "cafe"), in normal width.

    It is empty for a word that consists only of marks.
    """
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def split_words(text: str) -> list[Word]:
    """Split any text into words. It never raises; text without letters gives an empty list."""
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
    """Return the keys of the words of a name. A possessive keeps its mark: ("bird's", "eye", "view")."""
    return tuple(word.key + "'s" if word.possessive else word.key for word in split_words(name))


class Sentence:
    """The words of a caption, by position. Positions outside the sentence have the key ""."""

    def __init__(self, text: str) -> None:
        """Split a text into words."""
        self.text = text
        self.words = split_words(text)

    def __len__(self) -> int:
        return len(self.words)

    def get_key(self, position: int) -> str:
        """Return the key of a word; "" before the first and after the last word."""
        return self.words[position].key if 0 <= position < len(self.words) else ""

    def get_keys(self, first: int, stop: int) -> list[str]:
        """Return the keys of words[first:stop]."""
        return [word.key for word in self.words[first:stop]]

    def is_joined(self, position: int, gap: int) -> bool:
        """Return whether the gap between a word and the word before it is of this kind."""
        return 0 < position < len(self.words) and self.words[position].gap == gap

    def is_opening(self, position: int) -> bool:
        """Return whether a word starts the sentence or follows a break in it."""
        return position == 0 or self.words[position].gap == BREAK

    def is_possessive(self, position: int) -> bool:
        """Return whether a word is possessive: "dog's"."""
        return 0 <= position < len(self.words) and self.words[position].possessive

    def has_possessive(self, first: int, stop: int) -> bool:
        """Return whether a word of words[first:stop] is possessive."""
        return any(word.possessive for word in self.words[first:stop])

    def find_determiners(self, position: int) -> int:
        """Find the first of the determiners and numbers directly before a word, else the word itself."""
        while (
            self.is_joined(position, SPACE)
            and not self.words[position - 1].possessive
            and (self.words[position - 1].key in DETERMINERS or self.words[position - 1].key in NUMBERS)
        ):
            position -= 1
        return position

    def get_span(self, first: int, stop: int) -> tuple[int, int]:
        """Return the characters of words[first:stop] as (start, end) in the text."""
        return self.words[first].start, self.words[stop - 1].end
