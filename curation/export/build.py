"""Export targets by name."""

from __future__ import annotations

import difflib
from importlib import import_module

from curation.export.target import ExportTarget
from reprise.errors import InputError

# name -> "module:class". A module is imported when its target is used.
TARGETS = {
    "h3-musubi": "h3_musubi:H3MusubiTarget",
    "videox-fun": "videox_fun:VideoXFunTarget",
    "webdataset": "webdataset:WebDatasetTarget",
}


def build_target(name: str) -> ExportTarget:
    """Build a target.

    Raises:
        InputError: there is none of that name; the message names the nearest.
    """
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"targets are {', '.join(TARGETS)}"
        raise InputError(f"no export target {name}; {hint}")
    module, _, attribute = TARGETS[name].partition(":")
    target: ExportTarget = getattr(import_module(f"curation.export.targets.{module}"), attribute)()
    return target
