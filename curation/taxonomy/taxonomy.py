"""The taxonomy: groups -> categories -> names, read from one YAML file that people edit, and checked.

Kaleido 3.2 (2) matches captions against over 100 categories and over 800 names to find candidate subjects.
The shipped file is `taxonomy.yaml` beside this one; docs/taxonomy.md says how to change it or to bring one's
own.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curation.taxonomy.match import Adjectives, Matcher, MatchRules, Mention, NameForm, StandIn, make_key
from reprise.errors import RepriseError

SHIPPED_FILE = Path(__file__).with_name("taxonomy.yaml")
# What can be named instead of a path.
_PLAYGROUND_FOLDER = Path(__file__).parents[1] / "playground"
NAMED_FILES = {
    "playground": _PLAYGROUND_FOLDER / "taxonomy.yaml",
    "plain": _PLAYGROUND_FOLDER / "plain.taxonomy.yaml",
}
ADJECTIVES_FILE = Path(__file__).with_name("adjectives.yaml")

SECTIONS = ("groups", "plurals", "plural_only", "guards", "stand_ins", "heads", "depictions", "never")
GUARDS = ("verbs", "modifiers", "indefinite")
# Endings that take -es. A name in -o is listed under `plurals` where it takes -es ("tomatoes").
_SIBILANT_ENDINGS = ("s", "x", "z", "ch", "sh")


class TaxonomyError(RepriseError):
    """The file cannot be used. One line: the file, the place in it, what is wrong and how to mend it."""


@dataclass(frozen=True)
class Category:
    """A kind of subject. `name`: its label. `names`: what is looked for in captions."""

    name: str
    group: str
    names: tuple[str, ...]


class Taxonomy:
    """A checked, compiled taxonomy. Immutable; pickles, so that it can be sent to workers."""

    categories: Mapping[str, Category]
    revision: str

    def __init__(self, data: Mapping[str, Any], adjectives: Mapping[str, Any]) -> None:
        """Compile data that `problems` has nothing to say of; use `load` for files."""
        self.categories = {
            label: Category(label, group, tuple(names))
            for group, categories in data["groups"].items()
            for label, names in categories.items()
        }
        # Layout, comments and order of sections change no match, and so they do not change the revision.
        content = json.dumps([data, adjectives], sort_keys=True, ensure_ascii=True)
        self.revision = hashlib.sha256(content.encode()).hexdigest()[:12]
        self._matcher = _compile_matcher(self.categories, data, adjectives)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Taxonomy:
        """Read and check a taxonomy file, or one of `NAMED`; None reads the shipped one.

        Raises TaxonomyError, one line, if it is missing, no YAML, or breaks a rule of docs/taxonomy.md.
        """
        file = SHIPPED_FILE if path is None else NAMED_FILES.get(str(path), Path(path))
        data = _read_yaml(file)
        found = _check_structure(data) or _check_content(data)
        if found:
            more = (
                f" (and {len(found) - 1} more: reprise taxonomy --check --file {file})"
                if len(found) > 1
                else ""
            )
            raise TaxonomyError(f"{file}: {found[0]}{more}")
        return cls(data, _read_yaml(ADJECTIVES_FILE))

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in the order of the file."""
        return tuple(dict.fromkeys(category.group for category in self.categories.values()))

    def find_mentions(self, caption: str) -> list[Mention]:
        """The subjects `caption` names, in text order and without overlaps; empty if it names none."""
        return self._matcher.find_mentions(caption)


def make_plurals(name: str, irregular: Mapping[str, Any]) -> tuple[str, ...]:
    """The written plurals of a name: from the table (whole name, else its last word), else by rule.

    An entry of null gives no plural, for that name alone: "glass" has none here, "wine glass" does.
    """
    if name in irregular:
        return _list_forms(irregular[name])
    head, space, last = name.rpartition(" ")
    if irregular.get(last) is not None:
        return tuple(head + space + form for form in _list_forms(irregular[last]))
    if last.endswith(_SIBILANT_ENDINGS):
        return (name + "es",)
    if last.endswith("y") and last[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return (name[:-1] + "ies",)
    return (name + "s",)


def find_problems(path: str | Path) -> list[str]:
    """Everything wrong with a taxonomy file, one clear line each; empty if it can be used."""
    file = Path(path)
    try:
        data = _read_yaml(file)
    except TaxonomyError as error:
        return [str(error)]
    return [f"{file}: {problem}" for problem in _check_structure(data) or _check_content(data)]


# --- reading --------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: plain YAML would silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str):
                if key in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"'{key}' is given twice: merge the two", problem_mark=key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise TaxonomyError(
            f"{file}: cannot be read ({error.strerror}): give the path of a YAML file"
        ) from None
    except UnicodeDecodeError:
        raise TaxonomyError(f"{file}: is not UTF-8 text: save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise TaxonomyError(f"{file}: {where}{error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TaxonomyError(f"{file}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise TaxonomyError(f"{file}: is empty or no mapping: start it with 'groups:'")
    return data


# --- checking -------------------------------------------------------------------------------------


def _check_structure(data: Mapping[str, Any]) -> list[str]:
    """Whether every section has the shape the rest may rely on."""
    unknown = [section for section in data if section not in SECTIONS]
    found = [f"unknown section '{section}'{_suggest_nearest(str(section), SECTIONS)}" for section in unknown]
    groups = data.get("groups")
    if not isinstance(groups, dict) or not groups:
        return [*found, "groups: is missing or empty: write at least one 'group: {category: [names]}'"]
    for group, categories in groups.items():
        if not isinstance(group, str):
            found.append(f"group {group!r}: is no text: quote it")
        if not isinstance(categories, dict) or not categories:
            found.append(
                f"group '{group}': has no categories: write 'category: [names]' lines under it or remove it"
            )
            continue
        for label, names in categories.items():
            if not isinstance(label, str):
                found.append(f"group '{group}': category {label!r} is no text: quote it")
            if not isinstance(names, list) or not names:
                found.append(f"category '{label}': has no names: list at least one, or remove the category")
                continue
            found.extend(
                f"category '{label}': name {name!r} is no text: quote it"
                for name in names
                if not isinstance(name, str)
            )
    for section in ("plural_only", "heads", "depictions", "never"):
        found.extend(_check_text_list(section, data.get(section, [])))
    guards = data.get("guards", {})
    if not isinstance(guards, dict):
        found.append(f"guards: is no mapping: write lists under {', '.join(GUARDS)}")
    else:
        for guard, names in guards.items():
            if guard not in GUARDS:
                found.append(f"guards: unknown guard '{guard}'{_suggest_nearest(str(guard), GUARDS)}")
            found.extend(_check_text_list(f"guards: {guard}", names))
    plurals = data.get("plurals", {})
    if not isinstance(plurals, dict):
        found.append("plurals: is no mapping: write 'name: plural' lines")
    else:
        for name, forms in plurals.items():
            good = (
                forms is None
                or isinstance(forms, str)
                or (isinstance(forms, list) and bool(forms) and all(isinstance(form, str) for form in forms))
            )
            if not isinstance(name, str) or not good:
                found.append(f"plurals: '{name}': give a word, a list of words, or null")
    stand_ins = data.get("stand_ins", {})
    if not isinstance(stand_ins, dict):
        found.append("stand_ins: is no mapping: write 'word: {name: ..., groups: [...]}' lines")
    else:
        for word, rule in stand_ins.items():
            if not (
                isinstance(rule, dict)
                and set(rule) == {"name", "groups"}
                and isinstance(rule["name"], str)
                and isinstance(rule["groups"], list)
            ):
                found.append(f"stand_ins: '{word}': write {{name: a name, groups: [groups it applies to]}}")
    return found


def _check_content(data: Mapping[str, Any]) -> list[str]:
    """Whether the words make sense together. Assumes `_structure` found nothing."""
    found: list[str] = []
    home: dict[str, str] = {}  # category -> group
    owner: dict[tuple[str, ...], tuple[str, str]] = {}  # words of a name -> (name, category)
    for group, categories in data["groups"].items():
        for label, names in categories.items():
            if misspelt := _check_spelling(label):
                found.append(f"category '{label}': its label {misspelt}")
            if label in home:
                found.append(f"category '{label}': is in group '{home[label]}' and in '{group}': keep one")
            home[label] = group
            for name in names:
                if misspelt := _check_spelling(name):
                    found.append(f"category '{label}': name '{name}' {misspelt}")
                    continue
                key = make_key(name)
                if key in owner:
                    other, where = owner[key]
                    same = "" if other == name else f" (as '{other}')"
                    place = "twice" if where == label else f"also in category '{where}'"
                    found.append(f"category '{label}': name '{name}'{same} is {place}: keep one")
                else:
                    owner[key] = (name, label)
    names_known = {name for name, _ in owner.values()}
    irregular = data.get("plurals", {})
    for name, label in owner.values():
        for plural in () if name in data.get("plural_only", []) else make_plurals(name, irregular):
            other, where = owner.get(make_key(plural), (name, label))
            if other != name:
                found.append(
                    f"category '{where}': name '{other}' is the plural of '{name}' (category '{label}'): "
                    "remove it, "
                    f"or write '{name}: null' under plurals"
                )
    last_words = {name.rpartition(" ")[2] for name in names_known} | names_known
    found.extend(
        f"plurals: '{name}' is no name and ends none{_suggest_nearest(name, names_known)}"
        for name in irregular
        if name not in last_words
    )
    known_lists = {"plural_only": data.get("plural_only", [])} | {
        f"guards: {guard}": names for guard, names in data.get("guards", {}).items()
    }
    for section, names in known_lists.items():
        found.extend(
            f"{section}: '{name}' is no name of any category{_suggest_nearest(name, names_known)}"
            for name in names
            if name not in names_known
        )
        found.extend(
            f"{section}: '{name}' is listed twice: keep one" for name in sorted(_find_repeated(names))
        )
    for word, rule in data.get("stand_ins", {}).items():
        if rule["name"] not in names_known:
            hint = _suggest_nearest(rule["name"], names_known)
            found.append(f"stand_ins: '{word}': '{rule['name']}' is no name of any category{hint}")
        found.extend(
            f"stand_ins: '{word}': unknown group '{group}'{_suggest_nearest(str(group), data['groups'])}"
            for group in rule["groups"]
            if group not in data["groups"]
        )
    for phrase in data.get("never", []):
        if make_key(phrase) in owner:
            name, label = owner[make_key(phrase)]
            found.append(f"never: '{phrase}' is also a name of category '{label}': remove one of the two")
        elif not make_key(phrase):
            found.append(f"never: '{phrase}' has no letters: remove it")
    return found


def _check_spelling(name: str) -> str:
    """What is wrong with the way a name is written, or ""."""
    tidy = " ".join(name.lower().split())
    if not make_key(name):
        return "has no letters: remove it"
    return "" if name == tidy else f"has capitals or stray spaces: write '{tidy}'"


def _check_text_list(section: str, value: object) -> list[str]:
    if not isinstance(value, list):
        return [f"{section}: is no list: write [word, word]"]
    return [f"{section}: {item!r} is no text: quote it" for item in value if not isinstance(item, str)]


def _find_repeated(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def _suggest_nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean '{close[0]}'?" if close else ": remove it"


# --- compiling ------------------------------------------------------------------------------------


def _list_forms(forms: Any) -> tuple[str, ...]:
    if forms is None:
        return ()
    return (forms,) if isinstance(forms, str) else tuple(forms)


def _compile_matcher(
    categories: Mapping[str, Category], data: Mapping[str, Any], adjectives: Mapping[str, Any]
) -> Matcher:
    irregular = data.get("plurals", {})
    plural_only = frozenset(data.get("plural_only", []))
    forms: dict[str, NameForm] = {}
    entries: dict[str, NameForm] = {}
    for category in categories.values():
        for name in category.names:
            if name in plural_only:
                entry = NameForm(
                    name, category.name, category.group, singular=False, plural=True, plural_only=True
                )
                entries[name] = forms[name] = entry
                continue
            plurals = make_plurals(name, irregular)
            both = name in plurals  # "sheep": the word itself says nothing of number
            entries[name] = forms[name] = NameForm(
                name, category.name, category.group, singular=True, plural=both
            )
            for plural in plurals:
                if plural != name:
                    forms[plural] = NameForm(name, category.name, category.group, singular=False, plural=True)
    guards = {guard: frozenset(data.get("guards", {}).get(guard, [])) for guard in GUARDS}
    stand_ins = {
        word: StandIn(entries[rule["name"]], frozenset(rule["groups"]))
        for word, rule in data.get("stand_ins", {}).items()
    }
    special = ("also_verbs", "verbs", "phrase_ends")
    describing = frozenset(
        word for section, words in adjectives.items() if section not in special for word in words
    )
    return Matcher(
        forms.items(),
        data.get("never", []),
        MatchRules(
            guards["verbs"],
            guards["modifiers"],
            guards["indefinite"],
            frozenset(data.get("heads", [])),
            frozenset(data.get("depictions", [])),
            stand_ins,
        ),
        Adjectives(describing, *(frozenset(adjectives[section]) for section in special)),
    )
