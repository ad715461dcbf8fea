"""The taxonomy: groups -> categories -> names, read from one editable YAML file, and checked.

Kaleido 3.2 (2) matches captions against over 100 categories and over 800 names to find candidate subjects.
The shipped file is `taxonomy.yaml` in this folder; docs/taxonomy.md describes how to change it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.taxonomy.checks import GUARDS, check_data
from curation.taxonomy.files import ADJECTIVES_FILE, NAMED_FILES, SHIPPED_FILE, TaxonomyError, read_yaml
from curation.taxonomy.matcher import Matcher, MatchRules
from curation.taxonomy.mentions import Mention, StandIn
from curation.taxonomy.names import NameForm, NameTrie
from curation.taxonomy.phrase import Adjectives
from curation.taxonomy.plurals import make_plurals


@dataclass(frozen=True)
class Category:
    """A kind of subject. `name`: its label. `names`: the names that captions use."""

    name: str
    group: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class BodySize:
    """The usual height of a thing, m (None: unknown), and whether it stands on the ground."""

    height: float | None = None
    stands: bool = False


class Taxonomy:
    """A checked, compiled taxonomy. It is immutable and can be pickled, so that workers can receive it."""

    categories: Mapping[str, Category]
    revision: str

    def __init__(self, data: Mapping[str, Any], adjectives: Mapping[str, Any]) -> None:
        """Compile data in which `checks.check_data` finds no problem. Use `load` for files."""
        self.categories = {
            label: Category(label, group, tuple(names))
            for group, categories in data["groups"].items()
            for label, names in categories.items()
        }
        # Layout, comments and order of sections change no match, and so they do not change the revision.
        content = json.dumps([data, adjectives], sort_keys=True, ensure_ascii=True)
        self.revision = hashlib.sha256(content.encode()).hexdigest()[:12]
        self._bodies: Mapping[str, Mapping[str, Any]] = data.get("bodies", {})
        self._matcher = _compile_matcher(self.categories, data, adjectives)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Taxonomy:
        """Read and check a taxonomy file.

        Args:
            path: a file, or one of `files.NAMED_FILES`; None: the shipped file.

        Raises:
            TaxonomyError: the file is missing, no YAML, or breaks a rule of docs/taxonomy.md.
        """
        file = SHIPPED_FILE if path is None else NAMED_FILES.get(str(path), Path(path))
        data = read_yaml(file)
        problems = check_data(data)
        if problems:
            others = len(problems) - 1
            more = f" (and {others} more: reprise taxonomy --check --file {file})" if others else ""
            raise TaxonomyError(f"{file}: {problems[0]}{more}")
        return cls(data, read_yaml(ADJECTIVES_FILE))

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in the order of the file."""
        return tuple(dict.fromkeys(category.group for category in self.categories.values()))

    def find_mentions(self, caption: str) -> list[Mention]:
        """Find the subjects that a caption names, in text order, without overlaps; []: it names none."""
        return self._matcher.find_mentions(caption)

    def get_body(self, category: str, group: str) -> BodySize:
        """Return the body size of a category; if the file has none, that of its group."""
        return BodySize(**{**self._bodies.get(group, {}), **self._bodies.get(category, {})})


def _compile_matcher(
    categories: Mapping[str, Category], data: Mapping[str, Any], adjectives: Mapping[str, Any]
) -> Matcher:
    forms, by_name = _compile_forms(categories, data)
    guards = {guard: frozenset(data.get("guards", {}).get(guard, [])) for guard in GUARDS}
    stand_ins = {
        word: StandIn(by_name[rule["name"]], frozenset(rule["groups"]))
        for word, rule in data.get("stand_ins", {}).items()
    }
    rules = MatchRules(
        verbs=guards["verbs"],
        modifiers=guards["modifiers"],
        indefinite=guards["indefinite"],
        heads=frozenset(data.get("heads", [])),
        depictions=frozenset(data.get("depictions", [])),
        stand_ins=stand_ins,
    )
    return Matcher(NameTrie(forms.items(), data.get("never", [])), rules, _compile_adjectives(adjectives))


def _compile_forms(
    categories: Mapping[str, Category], data: Mapping[str, Any]
) -> tuple[dict[str, NameForm], dict[str, NameForm]]:
    """Compile (written form -> its meaning, name -> its own form)."""
    irregular = data.get("plurals", {})
    plural_only = frozenset(data.get("plural_only", []))
    forms: dict[str, NameForm] = {}
    by_name: dict[str, NameForm] = {}
    for category in categories.values():
        label, group = category.name, category.group
        for name in category.names:
            if name in plural_only:
                form = NameForm(name, label, group, singular=False, plural=True, plural_only=True)
                by_name[name] = forms[name] = form
                continue
            plurals = make_plurals(name, irregular)
            both = name in plurals  # "sheep": the word does not show the number
            by_name[name] = forms[name] = NameForm(name, label, group, singular=True, plural=both)
            for plural in plurals:
                if plural != name:
                    forms[plural] = NameForm(name, label, group, singular=False, plural=True)
    return forms, by_name


def _compile_adjectives(sections: Mapping[str, Any]) -> Adjectives:
    special = ("also_verbs", "verbs", "phrase_ends")
    describing = frozenset(
        word for section, words in sections.items() if section not in special for word in words
    )
    return Adjectives(describing, *(frozenset(sections[section]) for section in special))
