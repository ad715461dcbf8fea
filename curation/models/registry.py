"""Which backend answers which role, by profile; backends are imported only where they are used."""

from __future__ import annotations

import importlib
import importlib.util
import json
from typing import Any

from curation.config import CurationConfig
from curation.models import catalogue
from curation.models.checkpoints import resolve_checkpoint
from curation.models.spec import FORMER_NAMES, ModelSpec
from curation.playground import train_models
from curation.rows.schema import SubjectRow
from curation.taxonomy import Taxonomy
from reprise.digest import compute_digest
from reprise.errors import RepriseError

CLASSICAL = "classical"
PLAYGROUND = "playground"
VLLM = "vllm"  # an operator of the graph, not a stage's backend: see `curation.runner.ray_data`
_SHA256_MARK = "#sha256="
_PRETRAINED_PACKAGE = "curation.models.pretrained."
# role -> backend name -> "module:class". A role without an entry in a profile is answered by nobody, and what
# it would measure is recorded as unmeasured. `classical` takes nothing; the others take their `ModelSpec`.
BACKENDS: dict[str, dict[str, str]] = {
    "detector": {
        CLASSICAL: "curation.models.classical.detector:ClassicalDetector",
        "grounding-dino-hf": f"{_PRETRAINED_PACKAGE}grounding_dino_hf:GroundingDinoHF",
        "grounding-dino-original": f"{_PRETRAINED_PACKAGE}grounding_dino_original:GroundingDinoOriginal",
    },
    "segmenter": {
        CLASSICAL: "curation.models.classical.segmenter:ClassicalSegmenter",
        "sam-original": f"{_PRETRAINED_PACKAGE}sam_original:SamOriginal",
        "sam-hf": f"{_PRETRAINED_PACKAGE}sam_hf:SamHF",
    },
    "tracker": {"sam2-video": f"{_PRETRAINED_PACKAGE}sam2_video:Sam2Video"},
    "scorer": {
        "open-clip": f"{_PRETRAINED_PACKAGE}open_clip_scorer:OpenClipScorer",
        "clip-hf": f"{_PRETRAINED_PACKAGE}clip_hf:ClipHf",
    },
    "embedder": {
        "dinov2": f"{_PRETRAINED_PACKAGE}embedders:DinoEmbedder",
        "clip-embedder": f"{_PRETRAINED_PACKAGE}embedders:ClipEmbedder",
        "open-clip-embedder": f"{_PRETRAINED_PACKAGE}embedders:OpenClipEmbedder",
    },
    "faces": {
        CLASSICAL: "curation.models.classical.faces:ClassicalFaces",
        "insightface": f"{_PRETRAINED_PACKAGE}insightface_faces:InsightFaces",
    },
    "flow": {"raft": f"{_PRETRAINED_PACKAGE}raft_flow:RaftFlow"},
    "inpainter": {
        CLASSICAL: "curation.models.classical.inpainter:ClassicalInpainter",
        "flux-fill": f"{_PRETRAINED_PACKAGE}flux_fill:FluxFill",
        "flux-kontext": f"{_PRETRAINED_PACKAGE}flux_kontext:FluxKontext",
    },
    "variator": {
        CLASSICAL: "curation.models.classical.variator:ClassicalVariator",
        "flux-redux": f"{_PRETRAINED_PACKAGE}flux_redux:FluxRedux",
    },
    "captioner": {
        "vlm": f"{_PRETRAINED_PACKAGE}vlm_captioner:VlmCaptioner",
        VLLM: f"{_PRETRAINED_PACKAGE}vllm_captioner:VllmCaptioner",
    },
}
# Roles of one stage each, which may be switched off: then nobody answers, and no checkpoint is needed.
_ROLE_SECTIONS = {"tracker": "track", "flow": "flow"}
# Backends that load what another one's catalogue entries name, and which extra brings what they import.
_CATALOGUE_BACKENDS = {VLLM: "vlm"}
_INSTALL_EXTRAS = {VLLM: "ray[llm]"}
# What each backend imports besides torch, which all of them do.
_REQUIRED_PACKAGES: dict[str, tuple[str, ...]] = {
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


def _build_profile(name: str) -> dict[str, ModelSpec]:
    if name == CLASSICAL:
        return {role: ModelSpec(backend=CLASSICAL) for role, known in BACKENDS.items() if CLASSICAL in known}
    if name == PLAYGROUND:
        # Nobody learns to paint in minutes: what paints is classical, and captions lie beside the videos.
        paints = {role: ModelSpec(backend=CLASSICAL) for role in ("inpainter", "variator")}
        return {**train_models.list_playground_specs(), **paints}
    return {
        entry.role: catalogue.build_spec(entry)
        for entry in catalogue.list_published(name)
        if entry.default and entry.backend is not None
    }


PROFILES: dict[str, dict[str, ModelSpec]] = {
    name: _build_profile(name) for name in (CLASSICAL, PLAYGROUND, *catalogue.PROFILES)
}


def get_model_spec(config: CurationConfig, role: str) -> ModelSpec | None:
    """What answers a role under this config, and with which checkpoint; None: nobody does.

    A backend that is named without a checkpoint gets the one that the catalogue has for it.

    Raises:
        RepriseError: `models.<role>` names a backend that does not exist, or gives a checkpoint or options to
            one that takes none.
    """
    if role in _ROLE_SECTIONS and not getattr(config, _ROLE_SECTIONS[role]).enabled:
        return None
    chosen: str | ModelSpec | None = getattr(config.models, role)
    if chosen is None:
        return PROFILES[config.profile].get(role)
    spec = chosen if isinstance(chosen, ModelSpec) else ModelSpec(backend=chosen)
    if ":" in spec.backend:
        return spec
    if spec.backend not in BACKENDS[role]:
        if spec.backend in FORMER_NAMES:
            new = FORMER_NAMES[spec.backend]
            raise RepriseError(f"models.{role}={spec.backend}: this backend is now named {new}")
        known = ", ".join(sorted(BACKENDS[role])) or "none yet"
        raise RepriseError(f"models.{role}={spec.backend}: no such backend; known: {known}, or module:Class")
    if spec.backend == CLASSICAL:
        if spec != ModelSpec(backend=CLASSICAL):
            raise RepriseError(f"models.{role}: the backend {CLASSICAL} takes no checkpoint and no settings")
        return spec
    if spec.checkpoint is None:
        loads = _CATALOGUE_BACKENDS.get(spec.backend, spec.backend)
        published = [each for each in catalogue.list_published(role=role) if each.backend == loads]
        for entry in sorted(published, key=lambda each: not each.default)[:1]:
            spec = spec.model_copy(update={"checkpoint": entry.source, "revision": entry.revision})
    return spec


def get_backend_name(config: CurationConfig, role: str) -> str | None:
    """The backend that answers a role under this config; None: nobody does.

    Raises:
        RepriseError: as `spec_of`.
    """
    spec = get_model_spec(config, role)
    return None if spec is None else spec.backend


def load_backend(config: CurationConfig, role: str) -> Any:
    """Build the backend of a role, or return None where nobody answers it.

    Raises:
        RepriseError: no such backend, or a package or a checkpoint that it needs is not here.
    """
    spec = get_model_spec(config, role)
    return (
        None
        if spec is None
        else build_backend(role, spec, named_only=isinstance(getattr(config.models, role), str))
    )


def build_backend(role: str, spec: ModelSpec, *, named_only: bool = False) -> Any:
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
        backend = made() if name == CLASSICAL or (named_only and ":" in name) else made(spec)
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
    if spec.backend not in _REQUIRED_PACKAGES:
        return
    missing = [
        each
        for each in ("torch", *_REQUIRED_PACKAGES[spec.backend])
        if importlib.util.find_spec(each) is None
    ]
    if missing:
        names, extra = ", ".join(missing), _INSTALL_EXTRAS.get(spec.backend, "reprise[pretrained]")
        raise RepriseError(f"models.{role}={spec.backend} needs {names}: pip install '{extra}'")


def load_required_backend(config: CurationConfig, role: str) -> Any:
    """`load` for a role that a stage cannot do without.

    Raises:
        RepriseError: nobody answers it, or as `load`.
    """
    backend = load_backend(config, role)
    if backend is None:
        raise RepriseError(f"profile {config.profile} has no {role}: name one with models.{role}=...")
    return backend


def import_object(address: str, setting: str) -> Any:
    """The object at `module:name`, imported.

    Raises:
        RepriseError: there is none; `what` says who asked for it.
    """
    module, _, name = address.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise RepriseError(f"{setting}={address}: {error}; is it installed, or on PYTHONPATH?") from error
    except AttributeError as error:
        raise RepriseError(f"{setting}={address}: {module} has no {name}") from error


def get_model_id(backend: Any) -> str:
    """`name@revision`, and `#sha256=...` where it has a checkpoint, as rows record it."""
    return _format_model_id(backend.name, backend.revision, get_checkpoint_sha256(backend))


def get_checkpoint_sha256(backend: Any) -> str | None:
    """Of a backend's checkpoint, see `checkpoints.fingerprint`; None: it has none, or does not say."""
    if backend.name in _REQUIRED_PACKAGES:
        return str(backend.sha256)
    found = getattr(backend, "sha256", None)
    return found if isinstance(found, str) else None


def split_model_id(model_id: str) -> tuple[str, str, str | None]:
    """(name, revision, sha256) of what `identity` gave."""
    plain, _, sha256 = model_id.partition(_SHA256_MARK)
    name, _, revision = plain.partition("@")
    return name, revision, sha256 or None


def _format_model_id(name: str, revision: str, sha256: str | None) -> str:
    return f"{name}@{revision}" + (f"{_SHA256_MARK}{sha256}" if sha256 else "")


def record_model(subject: SubjectRow, role: str, backend: Any) -> None:
    """Record in a subject's `made_by` that a backend measured it."""
    made_by = json.loads(subject["made_by"] or "{}")
    made_by[role] = get_model_id(backend)
    subject["made_by"] = json.dumps(made_by, sort_keys=True)


def list_model_ids(config: CurationConfig) -> dict[str, str]:
    """role -> `identity` of every backend in use, and of the taxonomy: what makes a row what it is.

    Of a backend with a checkpoint that is what it will say of itself, told by the files without loading them.

    Raises:
        RepriseError: as `load`.
    """
    found = {role: name for role in BACKENDS if (name := resolve_model_id(config, role)) is not None}
    found["taxonomy"] = f"taxonomy@{Taxonomy.load(config.match.taxonomy).revision}"
    return found


def resolve_model_id(config: CurationConfig, role: str) -> str | None:
    """`identity` of what answers a role, see `revisions`; None: nobody does.

    Raises:
        RepriseError: as `load`.
    """
    spec = get_model_spec(config, role)
    if spec is None:
        return None
    if spec.backend not in _REQUIRED_PACKAGES:
        return get_model_id(load_backend(config, role))
    require_packages(role, spec)
    return _format_model_id(spec.backend, *_resolve_version(spec))


def _resolve_version(spec: ModelSpec) -> tuple[str, str]:
    """(revision, sha256) of the checkpoint; with its base's, where a model is a prior on a base.

    Raises:
        RepriseError: a checkpoint is not here, or not whole.
    """
    mine = resolve_checkpoint(spec)
    if spec.backend != "flux-redux":
        return mine.revision, mine.sha256
    base = resolve_checkpoint(catalogue.get_base_spec(spec))
    return f"{mine.revision}+{base.revision}", compute_digest(mine.sha256, base.sha256, length=64)
