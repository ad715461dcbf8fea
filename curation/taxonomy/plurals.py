"""Make English plurals by rules, and by a table of irregular ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Endings that take -es. A name in -o that takes -es is listed under `plurals` ("tomatoes").
_SIBILANT_ENDINGS = ("s", "x", "z", "ch", "sh")


def make_plurals(name: str, irregular: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the written plurals of a name: from the table (the name, else its last word), else by rule.

    Args:
        name: singular, lower case.
        irregular: name -> a plural, a list of them, or None: no plural. None applies only to that name:
            "glass" has no plural here, "wine glass" has one.
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


def _list_forms(forms: Any) -> tuple[str, ...]:
    if forms is None:
        return ()
    return (forms,) if isinstance(forms, str) else tuple(forms)
