"""Which backend answers which role, by profile; backends are imported only where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from curation.config import CurationConfig
from curation.errors import RepriseError

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
    if chosen is not None and chosen not in BACKENDS[role]:
        known = ", ".join(sorted(BACKENDS[role])) or "none yet"
        raise RepriseError(f"models.{role}={chosen}: no such backend; known: {known}")
    return chosen


def load(config: CurationConfig, role: str) -> Any:
    """Build the backend of a role, or return None where nobody answers it."""
    name = backend_name(config, role)
    if name is None:
        return None
    module, _, attribute = BACKENDS[role][name].partition(":")
    return getattr(importlib.import_module(module), attribute)()


def identity(backend: Any) -> str:
    """`name@revision`, as rows record it."""
    return f"{backend.name}@{backend.revision}"


def revisions(config: CurationConfig) -> dict[str, str]:
    """role -> `name@revision` of every backend in use; part of what makes a row what it is."""
    found = {}
    for role in BACKENDS:
        backend = load(config, role)
        if backend is not None:
            found[role] = identity(backend)
    return found
