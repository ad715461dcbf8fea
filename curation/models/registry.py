"""Which backend answers which role, by profile; backends are imported only where they are used."""

from __future__ import annotations

import importlib
import importlib.util
import json
from typing import Any

from curation.config import CurationConfig
from curation.models import catalogue
from curation.models.checkpoints import resolve
from curation.models.spec import ModelSpec
from curation.playground import train_models
from curation.rows.ids import digest
from curation.rows.schema import SubjectRow
from curation.taxonomy import Taxonomy
from reprise.errors import RepriseError

EMBEDDED = "embedded"
PLAYGROUND = "playground"
VLLM = "vllm"  # an operator of the graph, not a stage's backend: see `curation.runner.ray_data`
_SHA256 = "#sha256="
_FULL = "curation.models.pretrained."
# role -> backend name -> "module:class". A role without an entry in a profile is answered by nobody, and what
# it would measure is recorded as unmeasured. `embedded` takes nothing; every other one takes its `ModelSpec`.
BACKENDS: dict[str, dict[str, str]] = {
    "detector": {
        EMBEDDED: "curation.models.classical.detector:EmbeddedDetector",
        "grounding-dino-hf": f"{_FULL}grounding_dino_hf:GroundingDinoHF",
        "grounding-dino-original": f"{_FULL}grounding_dino_original:GroundingDinoOriginal",
    },
    "segmenter": {
        EMBEDDED: "curation.models.classical.segmenter:EmbeddedSegmenter",
        "sam-original": f"{_FULL}sam_original:SamOriginal",
        "sam-hf": f"{_FULL}sam_hf:SamHF",
    },
    "tracker": {"sam2-video": f"{_FULL}sam2_video:Sam2Video"},
    "scorer": {
        "open-clip": f"{_FULL}open_clip_scorer:OpenClipScorer",
        "clip-hf": f"{_FULL}clip_hf:ClipHf",
    },
    "embedder": {
        "dinov2": f"{_FULL}embedders:DinoEmbedder",
        "clip-embedder": f"{_FULL}embedders:ClipEmbedder",
        "open-clip-embedder": f"{_FULL}embedders:OpenClipEmbedder",
    },
    "faces": {
        EMBEDDED: "curation.models.classical.faces:EmbeddedFaces",
        "insightface": f"{_FULL}insightface_faces:InsightFaces",
    },
    "flow": {"raft": f"{_FULL}raft_flow:RaftFlow"},
    "inpainter": {
        EMBEDDED: "curation.models.classical.inpainter:EmbeddedInpainter",
        "flux-fill": f"{_FULL}flux_fill:FluxFill",
        "flux-kontext": f"{_FULL}flux_kontext:FluxKontext",
    },
    "variator": {
        EMBEDDED: "curation.models.classical.variator:EmbeddedVariator",
        "flux-redux": f"{_FULL}flux_redux:FluxRedux",
    },
    "captioner": {
        "vlm": f"{_FULL}vlm_captioner:VlmCaptioner",
        VLLM: f"{_FULL}vllm_captioner:VllmCaptioner",
    },
}
# Roles of one stage each, which may be switched off: then nobody answers, and no checkpoint is needed.
_SECTION = {"tracker": "track", "flow": "flow"}
# Backends that load what another one's catalogue entries name, and which extra brings what they import.
_LIKE = {VLLM: "vlm"}
_EXTRA = {VLLM: "ray[llm]"}
# What each backend imports besides torch, which all of them do.
_NEEDS: dict[str, tuple[str, ...]] = {
    "grounding-dino-hf": ("torchvision", "transformers"),
    "grounding-dino-original": ("torchvision", "transformers", "groundingdino"),
    "sam-original": ("segment_anything",),
    "sam-hf": ("transformers",),
    "sam2-video": ("transformers",),
    "open-clip": ("open_clip",),
    "clip-hf": ("transformers",),
    "dinov2": ("transformers",),
    "clip-embedder": ("transformers",),
    "open-clip-embedder": ("open_clip",),
    "insightface": ("insightface", "onnxruntime"),
    "raft": ("torchvision",),
    "flux-fill": ("transformers", "diffusers"),
    "flux-kontext": ("transformers", "diffusers"),
    "flux-redux": ("transformers", "diffusers"),
    "vlm": ("torchvision", "transformers"),
    VLLM: ("vllm", "aiohttp", "transformers"),
}


def _profile(name: str) -> dict[str, ModelSpec]:
    if name == EMBEDDED:
        return {role: ModelSpec(backend=EMBEDDED) for role, known in BACKENDS.items() if EMBEDDED in known}
    if name == PLAYGROUND:
        # Nobody learns to paint in minutes: what paints is embedded, and captions lie beside the videos.
        paints = {role: ModelSpec(backend=EMBEDDED) for role in ("inpainter", "variator")}
        return {**train_models.specs(), **paints}
    return {
        entry.role: catalogue.spec(entry)
        for entry in catalogue.entries(name)
        if entry.default and entry.backend is not None
    }


PROFILES: dict[str, dict[str, ModelSpec]] = {
    name: _profile(name) for name in (EMBEDDED, PLAYGROUND, *catalogue.PROFILES)
}


def spec_of(config: CurationConfig, role: str) -> ModelSpec | None:
    """What answers a role under this config, and with which checkpoint; None: nobody does.

    A backend that is named without a checkpoint gets the one that the catalogue has for it.

    Raises:
        RepriseError: `models.<role>` names a backend that does not exist, or gives a checkpoint or options to
            one that takes none.
    """
    if role in _SECTION and not getattr(config, _SECTION[role]).enabled:
        return None
    chosen: str | ModelSpec | None = getattr(config.models, role)
    if chosen is None:
        return PROFILES[config.profile].get(role)
    spec = chosen if isinstance(chosen, ModelSpec) else ModelSpec(backend=chosen)
    if ":" in spec.backend:
        return spec
    if spec.backend not in BACKENDS[role]:
        known = ", ".join(sorted(BACKENDS[role])) or "none yet"
        raise RepriseError(f"models.{role}={spec.backend}: no such backend; known: {known}, or module:Class")
    if spec.backend == EMBEDDED:
        if spec != ModelSpec(backend=EMBEDDED):
            raise RepriseError(f"models.{role}: the backend {EMBEDDED} takes no checkpoint and no settings")
        return spec
    if spec.checkpoint is None:
        loads = _LIKE.get(spec.backend, spec.backend)
        published = [each for each in catalogue.entries(role=role) if each.backend == loads]
        for entry in sorted(published, key=lambda each: not each.default)[:1]:
            spec = spec.model_copy(update={"checkpoint": entry.source, "revision": entry.revision})
    return spec


def backend_name(config: CurationConfig, role: str) -> str | None:
    """The backend that answers a role under this config; None: nobody does.

    Raises:
        RepriseError: as `spec_of`.
    """
    spec = spec_of(config, role)
    return None if spec is None else spec.backend


def load(config: CurationConfig, role: str) -> Any:
    """Build the backend of a role, or return None where nobody answers it.

    Raises:
        RepriseError: no such backend, or a package or a checkpoint that it needs is not here.
    """
    spec = spec_of(config, role)
    return None if spec is None else build(role, spec, bare=isinstance(getattr(config.models, role), str))


def build(role: str, spec: ModelSpec, *, bare: bool = False) -> Any:
    """The backend of a spec.

    Args:
        bare: it was named alone; then one of one's own is called with nothing, else with the spec.

    Raises:
        RepriseError: as `load`.
    """
    name = spec.backend
    require_packages(role, spec)
    made = import_object(BACKENDS[role].get(name, name), f"models.{role}")
    try:
        backend = made() if name == EMBEDDED or (bare and ":" in name) else made(spec)
    except ImportError as error:
        raise RepriseError(f"models.{role}={name}: {error}; is it installed, or on PYTHONPATH?") from error
    if not (getattr(backend, "name", None) and getattr(backend, "revision", None)):
        raise RepriseError(f"models.{role}={name}: a backend must say its `name` and `revision`")
    return backend


def require_packages(role: str, spec: ModelSpec) -> None:
    """Check that what a backend imports is installed, without importing it.

    Raises:
        RepriseError: it is not.
    """
    if spec.backend not in _NEEDS:
        return
    missing = [each for each in ("torch", *_NEEDS[spec.backend]) if importlib.util.find_spec(each) is None]
    if missing:
        names, extra = ", ".join(missing), _EXTRA.get(spec.backend, "reprise[full]")
        raise RepriseError(f"models.{role}={spec.backend} needs {names}: pip install '{extra}'")


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
    """`name@revision`, and `#sha256=...` where it has a checkpoint, as rows record it."""
    return _words(backend.name, backend.revision, sha256_of(backend))


def sha256_of(backend: Any) -> str | None:
    """Of a backend's checkpoint, see `checkpoints.fingerprint`; None: it has none, or does not say."""
    if backend.name in _NEEDS:
        return str(backend.sha256)
    found = getattr(backend, "sha256", None)
    return found if isinstance(found, str) else None


def parts(words: str) -> tuple[str, str, str | None]:
    """(name, revision, sha256) of what `identity` gave."""
    plain, _, sha256 = words.partition(_SHA256)
    name, _, revision = plain.partition("@")
    return name, revision, sha256 or None


def _words(name: str, revision: str, sha256: str | None) -> str:
    return f"{name}@{revision}" + (f"{_SHA256}{sha256}" if sha256 else "")


def note(subject: SubjectRow, role: str, backend: Any) -> None:
    """Record in a subject's `made_by` that a backend measured it."""
    made_by = json.loads(subject["made_by"] or "{}")
    made_by[role] = identity(backend)
    subject["made_by"] = json.dumps(made_by, sort_keys=True)


def revisions(config: CurationConfig) -> dict[str, str]:
    """role -> `identity` of every backend in use, and of the taxonomy: what makes a row what it is.

    Of a backend with a checkpoint that is what it will say of itself, told by the files without loading them.

    Raises:
        RepriseError: as `load`.
    """
    found = {role: name for role in BACKENDS if (name := named(config, role)) is not None}
    found["taxonomy"] = f"taxonomy@{Taxonomy.load(config.match.taxonomy).revision}"
    return found


def named(config: CurationConfig, role: str) -> str | None:
    """`identity` of what answers a role, see `revisions`; None: nobody does.

    Raises:
        RepriseError: as `load`.
    """
    spec = spec_of(config, role)
    if spec is None:
        return None
    if spec.backend not in _NEEDS:
        return identity(load(config, role))
    require_packages(role, spec)
    return _words(spec.backend, *_checkpoint(spec))


def _checkpoint(spec: ModelSpec) -> tuple[str, str]:
    """(revision, sha256) of the checkpoint; with its base's, where a model is a prior on a base.

    Raises:
        RepriseError: a checkpoint is not here, or not whole.
    """
    mine = resolve(spec)
    if spec.backend != "flux-redux":
        return mine.revision, mine.sha256
    base = resolve(catalogue.base(spec))
    return f"{mine.revision}+{base.revision}", digest(mine.sha256, base.sha256, length=64)
