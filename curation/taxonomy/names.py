"""The names of a taxonomy, and a trie that finds them at a cost that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from curation.taxonomy.sentence import HYPHEN, Sentence, make_key

_END = " "  # key of the form that ends at a node; no word has a space in it


@dataclass(frozen=True)
class NameForm:
    """A written form of a name, and its meaning. `singular` and `plural` are both true for "sheep"."""

    name: str
    category: str
    group: str
    singular: bool = True
    plural: bool = False
    plural_only: bool = False

    @property
    def is_surely_singular(self) -> bool:
        """Whether the form can only be a singular."""
        return self.singular and not self.plural

    @property
    def is_surely_plural(self) -> bool:
        """Whether the form can only be a plural."""
        return self.plural and not self.singular


class NameTrie:
    """All forms of all names, by their words."""

    def __init__(self, forms: Iterable[tuple[str, NameForm]], never: Iterable[str]) -> None:
        """Build the trie.

        Args:
            forms: (written form, its meaning), with plurals.
            never: phrases that contain a name and mean no subject.
        """
        self._root: dict[str, Any] = {}
        for written, form in forms:
            self._add_form(written, form)
        for phrase in never:
            self._add_form(phrase, None)

    def _add_form(self, written: str, form: NameForm | None) -> None:
        node = self._root
        for key in make_key(written):
            node = node.setdefault(key, {})
        node[_END] = form  # None marks a phrase of `never`

    def list_names_at(self, sentence: Sentence, first: int) -> list[tuple[int, NameForm | None]]:
        """List the names that start at a word as (stop, form), the longest first. None: a phrase of `never`.

        A part of a hyphenated word is no name: "cat-like" has no "cat".
        """
        words = sentence.words
        found: list[tuple[int, NameForm | None]] = []
        if words[first].gap == HYPHEN:
            return found
        node = self._root
        for position in range(first, len(words)):
            word = words[position]
            if position > first and word.gap > HYPHEN:
                break
            child = node.get(word.key)
            if child is not None and _END in child and not sentence.is_joined(position + 1, HYPHEN):
                found.append((position + 1, child[_END]))
            if word.possessive:
                # A possessor ("dog's") ends here, unless the whole phrase is a name: "bird's nest".
                child = node.get(word.key + "'s")
            if child is None:
                break
            node = child
        found.reverse()
        return found
