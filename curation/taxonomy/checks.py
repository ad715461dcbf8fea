"""Check a taxonomy file: one line for each problem, with its place and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.taxonomy.files import TaxonomyError, read_yaml
from curation.taxonomy.plurals import make_plurals
from curation.taxonomy.sentence import make_key

SECTIONS = (
    "groups",
    "bodies",
    "plurals",
    "plural_only",
    "guards",
    "stand_ins",
    "heads",
    "depictions",
    "never",
)
GUARDS = ("verbs", "modifiers", "indefinite")


def find_problems(path: str | Path) -> list[str]:
    """List all problems of a taxonomy file, one line each; []: it can be used."""
    file = Path(path)
    try:
        data = read_yaml(file)
    except TaxonomyError as error:
        return [str(error)]
    return [f"{file}: {problem}" for problem in check_data(data)]


def check_data(data: Mapping[str, Any]) -> list[str]:
    """List all problems of the content of a taxonomy file. The types of its sections are checked first."""
    return list(_check_shapes(data)) or list(_check_words(data))


# --- types of the sections --------------------------------------------------------------------------


def _check_shapes(data: Mapping[str, Any]) -> Iterator[str]:
    """Check that every section has its type."""
    for section in data:
        if section not in SECTIONS:
            yield f"unknown section '{section}'{_suggest_nearest(str(section), SECTIONS)}"
    groups = data.get("groups")
    if not isinstance(groups, dict) or not groups:
        yield "groups: is missing or empty: write at least one 'group: {category: [names]}'"
        return
    yield from _check_groups(groups)
    for section in ("plural_only", "heads", "depictions", "never"):
        yield from _check_text_list(section, data.get(section, []))
    yield from _check_guards(data.get("guards", {}))
    yield from _check_plurals(data.get("plurals", {}))
    yield from _check_stand_ins(data.get("stand_ins", {}))
    yield from _check_bodies(data.get("bodies", {}))


def _check_groups(groups: Mapping[Any, Any]) -> Iterator[str]:
    for group, categories in groups.items():
        if not isinstance(group, str):
            yield f"group {group!r}: is no text: quote it"
        if not isinstance(categories, dict) or not categories:
            yield f"group '{group}': has no categories: write 'category: [names]' lines under it or remove it"
            continue
        for label, names in categories.items():
            if not isinstance(label, str):
                yield f"group '{group}': category {label!r} is no text: quote it"
            if not isinstance(names, list) or not names:
                yield f"category '{label}': has no names: list at least one, or remove the category"
                continue
            for name in names:
                if not isinstance(name, str):
                    yield f"category '{label}': name {name!r} is no text: quote it"


def _check_guards(guards: object) -> Iterator[str]:
    if not isinstance(guards, dict):
        yield f"guards: is no mapping: write lists under {', '.join(GUARDS)}"
        return
    for guard, names in guards.items():
        if guard not in GUARDS:
            yield f"guards: unknown guard '{guard}'{_suggest_nearest(str(guard), GUARDS)}"
        yield from _check_text_list(f"guards: {guard}", names)


def _check_plurals(plurals: object) -> Iterator[str]:
    if not isinstance(plurals, dict):
        yield "plurals: is no mapping: write 'name: plural' lines"
        return
    for name, forms in plurals.items():
        is_list = isinstance(forms, list) and bool(forms) and all(isinstance(form, str) for form in forms)
        if not isinstance(name, str) or not (forms is None or isinstance(forms, str) or is_list):
            yield f"plurals: '{name}': give a word, a list of words, or null"


def _check_stand_ins(stand_ins: object) -> Iterator[str]:
    if not isinstance(stand_ins, dict):
        yield "stand_ins: is no mapping: write 'word: {name: ..., groups: [...]}' lines"
        return
    for word, rule in stand_ins.items():
        if not (
            isinstance(rule, dict)
            and set(rule) == {"name", "groups"}
            and isinstance(rule["name"], str)
            and isinstance(rule["groups"], list)
        ):
            yield f"stand_ins: '{word}': write {{name: a name, groups: [groups it applies to]}}"


def _check_bodies(bodies: object) -> Iterator[str]:
    if not isinstance(bodies, dict):
        yield "bodies: is no mapping: write 'category: {height: metres, stands: true}' lines"
        return
    for label, body in bodies.items():
        if not isinstance(body, dict) or not body or not set(body) <= {"height", "stands"}:
            yield f"bodies: '{label}': write {{height: metres, stands: true or false}}, or one of the two"
            continue
        height = body.get("height", 1)
        if isinstance(height, bool) or not isinstance(height, int | float) or not 0 < height < float("inf"):
            yield f"bodies: '{label}': height {height!r} is no positive number of metres"
        if not isinstance(body.get("stands", True), bool):
            yield f"bodies: '{label}': stands is neither true nor false"


def _check_text_list(section: str, value: object) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{section}: is no list: write [word, word]"
        return
    for item in value:
        if not isinstance(item, str):
            yield f"{section}: {item!r} is no text: quote it"


# --- names ----------------------------------------------------------------------------------------


@dataclass
class _KnownNames:
    """The names of a file, collected while its groups are checked."""

    owners: dict[tuple[str, ...], tuple[str, str]] = field(default_factory=dict)  # key -> (name, category)
    homes: dict[str, str] = field(default_factory=dict)  # category -> group

    @property
    def names(self) -> set[str]:
        """All names, as in the file."""
        return {name for name, _ in self.owners.values()}


def _check_words(data: Mapping[str, Any]) -> Iterator[str]:
    """Check the names and the references between sections, whose types are right."""
    known = _KnownNames()
    yield from _check_names(data["groups"], known)
    yield from _check_written_plurals(data, known)
    yield from _check_references(data, known)
    for phrase in data.get("never", []):
        key = make_key(phrase)
        if key in known.owners:
            _, label = known.owners[key]
            yield f"never: '{phrase}' is also a name of category '{label}': remove one of the two"
        elif not key:
            yield f"never: '{phrase}' has no letters: remove it"


def _check_names(groups: Mapping[str, Any], known: _KnownNames) -> Iterator[str]:
    """Check that each category and each name is spelled right and unique; fill `known`."""
    for group, categories in groups.items():
        for label, names in categories.items():
            if fault := _find_spelling_fault(label):
                yield f"category '{label}': its label {fault}"
            if label in known.homes:
                yield f"category '{label}': is in group '{known.homes[label]}' and in '{group}': keep one"
            known.homes[label] = group
            for name in names:
                if fault := _find_spelling_fault(name):
                    yield f"category '{label}': name '{name}' {fault}"
                    continue
                key = make_key(name)
                if key in known.owners:
                    other, where = known.owners[key]
                    same = "" if other == name else f" (as '{other}')"
                    place = "twice" if where == label else f"also in category '{where}'"
                    yield f"category '{label}': name '{name}'{same} is {place}: keep one"
                else:
                    known.owners[key] = (name, label)


def _check_written_plurals(data: Mapping[str, Any], known: _KnownNames) -> Iterator[str]:
    """Check that no name is the plural of another, and that each irregular plural belongs to a name."""
    irregular = data.get("plurals", {})
    for name, label in known.owners.values():
        for plural in () if name in data.get("plural_only", []) else make_plurals(name, irregular):
            other, where = known.owners.get(make_key(plural), (name, label))
            if other != name:
                yield (
                    f"category '{where}': name '{other}' is the plural of '{name}' (category '{label}'): "
                    f"remove it, or write '{name}: null' under plurals"
                )
    names = known.names
    last_words = {name.rpartition(" ")[2] for name in names} | names
    for name in irregular:
        if name not in last_words:
            yield f"plurals: '{name}' is no name and ends none{_suggest_nearest(name, names)}"


def _check_references(data: Mapping[str, Any], known: _KnownNames) -> Iterator[str]:
    """Check that the names, categories and groups in other sections exist."""
    names_known = known.names
    sections = {"plural_only": data.get("plural_only", [])}
    sections |= {f"guards: {guard}": names for guard, names in data.get("guards", {}).items()}
    for section, names in sections.items():
        for name in names:
            if name not in names_known:
                yield f"{section}: '{name}' is no name of any category{_suggest_nearest(name, names_known)}"
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"{section}: '{name}' is listed twice: keep one"
    for word, rule in data.get("stand_ins", {}).items():
        if rule["name"] not in names_known:
            hint = _suggest_nearest(rule["name"], names_known)
            yield f"stand_ins: '{word}': '{rule['name']}' is no name of any category{hint}"
        for group in rule["groups"]:
            if group not in data["groups"]:
                hint = _suggest_nearest(str(group), data["groups"])
                yield f"stand_ins: '{word}': unknown group '{group}'{hint}"
    labels = [*data["groups"], *known.homes]
    for label in data.get("bodies", {}):
        if label not in labels:
            yield f"bodies: '{label}' is no group and no category{_suggest_nearest(str(label), labels)}"


def _find_spelling_fault(name: str) -> str:
    """Return the fault in the spelling of a name, or ""."""
    tidy = " ".join(name.lower().split())
    if not make_key(name):
        return "has no letters: remove it"
    return "" if name == tidy else f"has capitals or stray spaces: write '{tidy}'"


def _suggest_nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean '{close[0]}'?" if close else ": remove it"
