"""Which backend answers which role, by profile; backends are imported only where they are used."""

from __future__ import annotations

import importlib
import json
from typing import Any

from curation.config import CurationConfig
from curation.errors import RepriseError
from curation.schema import SubjectRow
from curation.taxonomy import Taxonomy

# role -> backend name -> "module:class". A role without an entry in a profile is answered by nobody, and what
# it would measure is recorded as unmeasured.
BACKENDS: dict[str, dict[str, str]] = {
    "detector": {"embedded": "curation.models.embedded.detector:EmbeddedDetector"},
    "segmenter": {"embedded": "curation.models.embedded.segmenter:EmbeddedSegmenter"},
    "faces": {"embedded": "curation.models.embedded.faces:EmbeddedFaces"},
    "inpainter": {"embedded": "curation.models.embedded.inpainter:EmbeddedInpainter"},
    "variator": {"embedded": "curation.models.embedded.variator:EmbeddedVariator"},
    "captioner": {},
    "scorer": {},
}
PROFILES: dict[str, dict[str, str]] = {
    "embedded": {role: "embedded" for role, known in BACKENDS.items() if "embedded" in known},
}


def backend_name(config: CurationConfig, role: str) -> str | None:
    """The backend that answers a role under this config; None: nobody does.

    Raises:
        RepriseError: `models.<role>` names a backend that does not exist.
    """
    chosen: str | None = getattr(config.models, role) or PROFILES[config.profile].get(role)
    if chosen is not None and ":" not in chosen and chosen not in BACKENDS[role]:
        known = ", ".join(sorted(BACKENDS[role])) or "none yet"
        raise RepriseError(f"models.{role}={chosen}: no such backend; known: {known}, or module:Class")
    return chosen


def load(config: CurationConfig, role: str) -> Any:
    """Build the backend of a role, or return None where nobody answers it.

    Raises:
        RepriseError: no such backend, or a package that it needs is not installed.
    """
    name = backend_name(config, role)
    if name is None:
        return None
    backend = import_object(BACKENDS[role].get(name, name), f"models.{role}")()
    if not (getattr(backend, "name", None) and getattr(backend, "revision", None)):
        raise RepriseError(f"models.{role}={name}: a backend must say its `name` and `revision`")
    return backend


def required(config: CurationConfig, role: str) -> Any:
    """`load` for a role that a stage cannot do without.

    Raises:
        RepriseError: nobody answers it, or as `load`.
    """
    backend = load(config, role)
    if backend is None:
        raise RepriseError(f"profile {config.profile} has no {role}: name one with models.{role}=...")
    return backend


def import_object(address: str, what: str) -> Any:
    """The object at `module:name`, imported.

    Raises:
        RepriseError: there is none; `what` says who asked for it.
    """
    module, _, name = address.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise RepriseError(f"{what}={address}: {error}; is it installed, or on PYTHONPATH?") from error
    except AttributeError as error:
        raise RepriseError(f"{what}={address}: {module} has no {name}") from error


def identity(backend: Any) -> str:
    """`name@revision`, as rows record it."""
    return f"{backend.name}@{backend.revision}"


def note(subject: SubjectRow, role: str, backend: Any) -> None:
    """Record in a subject's `made_by` that a backend measured it."""
    made_by = json.loads(subject["made_by"] or "{}")
    made_by[role] = identity(backend)
    subject["made_by"] = json.dumps(made_by, sort_keys=True)


def revisions(config: CurationConfig) -> dict[str, str]:
    """role -> `name@revision` of every backend in use, and of the taxonomy: what makes a row what it is."""
    found = {}
    for role in BACKENDS:
        backend = load(config, role)
        if backend is not None:
            found[role] = identity(backend)
    found["taxonomy"] = f"taxonomy@{Taxonomy.load(config.match.taxonomy).revision}"
    return found
