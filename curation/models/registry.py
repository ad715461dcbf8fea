"""Build the model that fills a role under a config, and identify it.

Rows, the manifest and the config's hash name a model by its id, `backend@revision#sha256=...`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from typing import Any

from curation.config import FORMER_NAMES, CurationConfig
from curation.model_spec import ModelSpec
from curation.models import backends, catalogue
from curation.models.backends import Backend
from curation.models.checkpoints import resolve_checkpoint
from curation.models.profiles import list_profile_specs
from curation.rows.schema import SubjectRow
from curation.taxonomy import Taxonomy
from reprise.digest import compute_digest
from reprise.errors import RepriseError

_SHA256_MARK = "#sha256="
# Roles that one stage uses. The config section of that name can switch the stage off, and its role then needs
# no checkpoint.
_ROLE_SECTIONS = {"tracker": "track", "flow": "flow"}


# ---- which backend, with which checkpoint ------------------------------------------------------------------


def get_model_spec(config: CurationConfig, role: str) -> ModelSpec | None:
    """Return the spec of the model that fills a role under this config; None: no model does.

    A backend that is named without a checkpoint gets the one that the catalogue has for it.

    Raises:
        RepriseError: `models.<role>` names a backend that does not exist, or sets a checkpoint or options for
            a backend that takes none.
    """
    if role in _ROLE_SECTIONS and not getattr(config, _ROLE_SECTIONS[role]).enabled:
        return None
    chosen: str | ModelSpec | None = getattr(config.models, role)
    if chosen is None:
        return list_profile_specs(config.profile, config.models.size).get(role)
    spec = chosen if isinstance(chosen, ModelSpec) else ModelSpec(backend=chosen)
    if ":" in spec.backend:
        return spec
    record = _require_record(role, spec.backend)
    if not record.takes_checkpoint:
        if spec != ModelSpec(backend=spec.backend):
            raise RepriseError(
                f"models.{role}: the backend {spec.backend} takes no checkpoint and no settings"
            )
        return spec
    published = catalogue.find_default_spec(record, config.models.size) if spec.checkpoint is None else None
    if published is not None:
        spec = spec.model_copy(update={"checkpoint": published.checkpoint, "revision": published.revision})
    return spec


def list_checkpoint_specs(config: CurationConfig) -> list[tuple[str, str, ModelSpec]]:
    """List (role, name, spec) of every checkpoint that a config uses, the bases of priors among them.

    `name` is the backend's; for a base it is the catalogue's.

    Raises:
        RepriseError: as `get_model_spec`.
    """
    found = []
    for role in backends.ROLES:
        spec = get_model_spec(config, role)
        if spec is None or spec.checkpoint is None:
            continue
        found.append((role, spec.backend, spec))
        record = backends.find_backend(role, spec.backend)
        base_spec = catalogue.build_base_spec(record, spec) if record else None
        if record is not None and record.base is not None and base_spec is not None:
            found.append((role, record.base, base_spec))
    return found


def get_backend_name(config: CurationConfig, role: str) -> str | None:
    """Return the name of the backend that fills a role under this config; None: no backend does.

    Raises:
        RepriseError: as `get_model_spec`.
    """
    spec = get_model_spec(config, role)
    return None if spec is None else spec.backend


def _require_record(role: str, name: str) -> Backend:
    record = backends.find_backend(role, name)
    if record is None and name in FORMER_NAMES:
        raise RepriseError(f"models.{role}={name}: this backend is now named {FORMER_NAMES[name]}")
    if record is None:
        known = ", ".join(sorted(each.name for each in backends.list_backends(role))) or "none yet"
        raise RepriseError(f"models.{role}={name}: no such backend; known: {known}, or module:Class")
    return record


# ---- loading -----------------------------------------------------------------------------------------------


def load_backend(config: CurationConfig, role: str) -> Any:
    """Load the model that fills a role; None: no backend is configured for it.

    Raises:
        RepriseError: the backend does not exist, or a package or checkpoint that it needs is not installed.
    """
    spec = get_model_spec(config, role)
    if spec is None:
        return None
    return build_backend(role, spec, named_only=isinstance(getattr(config.models, role), str))


def load_required_backend(config: CurationConfig, role: str) -> Any:
    """Load the model of a role that a stage needs.

    Raises:
        RepriseError: no backend is configured for the role, or as `load_backend`.
    """
    model = load_backend(config, role)
    if model is None:
        raise RepriseError(f"profile {config.profile} has no {role}: name one with models.{role}=...")
    return model


def build_backend(role: str, spec: ModelSpec, *, named_only: bool = False) -> Any:
    """Build the model of a spec.

    Args:
        role: the role that it fills.
        spec: backend, checkpoint and settings.
        named_only: the config gives only a name. A user's own class is then built without arguments, else
            with the spec.

    Raises:
        RepriseError: as `load_backend`.
    """
    name = spec.backend
    require_packages(role, spec)
    record = backends.find_backend(role, name)
    build = import_object(record.address if record else name, f"models.{role}")
    takes_spec = record.takes_checkpoint if record else not named_only
    try:
        model = build(spec) if takes_spec else build()
    except ImportError as error:
        raise RepriseError(f"models.{role}={name}: {error}; is it installed, or on PYTHONPATH?") from error
    if not (getattr(model, "name", None) and getattr(model, "revision", None)):
        raise RepriseError(f"models.{role}={name}: a backend needs the attributes `name` and `revision`")
    return model


def require_packages(role: str, spec: ModelSpec) -> None:
    """Check that the packages of a backend are installed, without importing them.

    Raises:
        RepriseError: one is not.
    """
    record = backends.find_backend(role, spec.backend)
    missing = list_missing_packages(record) if record else []
    if record and missing:
        raise RepriseError(
            f"models.{role}={spec.backend} needs {', '.join(missing)}: pip install '{record.extra}'"
        )


def list_missing_packages(record: Backend) -> list[str]:
    """List the packages of a backend that are not installed, without importing any."""
    return [package for package in record.packages if importlib.util.find_spec(package) is None]


def import_object(address: str, setting: str) -> Any:
    """Import the object at `module:name`.

    Args:
        address: `module:name`.
        setting: key of the config that holds it, for the error.

    Raises:
        RepriseError: the module does not exist, or has no object of this name.
    """
    module, _, name = address.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise RepriseError(f"{setting}={address}: {error}; is it installed, or on PYTHONPATH?") from error
    except AttributeError as error:
        raise RepriseError(f"{setting}={address}: {module} has no {name}") from error


# ---- model ids ---------------------------------------------------------------------------------------------


def get_model_id(model: Any) -> str:
    """Return a model's id as rows record it: `name@revision`, and `#sha256=...` where it has a checkpoint."""
    return _format_model_id(model.name, model.revision, get_checkpoint_sha256(model))


def get_checkpoint_sha256(model: Any) -> str | None:
    """Return the fingerprint of a model's checkpoint; None: it has no checkpoint.

    Raises:
        AttributeError: a backend in `BACKENDS` loads a checkpoint and has no attribute `sha256`.
    """
    if any(record.name == model.name and record.takes_checkpoint for record in backends.BACKENDS):
        return str(model.sha256)
    sha256 = getattr(model, "sha256", None)
    return sha256 if isinstance(sha256, str) else None


def split_model_id(model_id: str) -> tuple[str, str, str | None]:
    """Split an id of `get_model_id` into (name, revision, sha256)."""
    plain, _, sha256 = model_id.partition(_SHA256_MARK)
    name, _, revision = plain.partition("@")
    return name, revision, sha256 or None


def record_model(subject: SubjectRow, role: str, model: Any) -> None:
    """Record in a subject's `made_by` that a model measured it."""
    made_by = json.loads(subject["made_by"] or "{}")
    made_by[role] = get_model_id(model)
    subject["made_by"] = json.dumps(made_by, sort_keys=True)


def list_model_ids(config: CurationConfig) -> dict[str, str]:
    """Map each role to the id of its model, and `taxonomy` to its id.

    A row depends on these and on the config.

    The id of a model with a checkpoint is read from its files; the model is not loaded.

    Raises:
        RepriseError: as `load_backend`.
    """
    ids = {role: name for role in backends.ROLES if (name := resolve_model_id(config, role)) is not None}
    ids["taxonomy"] = f"taxonomy@{Taxonomy.load(config.match.taxonomy).revision}"
    return ids


def resolve_model_id(config: CurationConfig, role: str) -> str | None:
    """Return the id of the model that fills a role, see `list_model_ids`; None: no model does.

    Raises:
        RepriseError: as `load_backend`.
    """
    spec = get_model_spec(config, role)
    if spec is None:
        return None
    record = backends.find_backend(role, spec.backend)
    if record is None or not record.takes_checkpoint:
        return get_model_id(load_backend(config, role))
    require_packages(role, spec)
    return _format_model_id(spec.backend, *_resolve_version(record, spec))


def _format_model_id(name: str, revision: str, sha256: str | None) -> str:
    return f"{name}@{revision}" + (f"{_SHA256_MARK}{sha256}" if sha256 else "")


def _resolve_version(record: Backend, spec: ModelSpec) -> tuple[str, str]:
    """Return (revision, sha256) of the checkpoint, combined with those of its base where it has one."""
    checkpoint = resolve_checkpoint(spec)
    base_spec = catalogue.build_base_spec(record, spec)
    if base_spec is None:
        return checkpoint.revision, checkpoint.sha256
    base = resolve_checkpoint(base_spec)
    return f"{checkpoint.revision}+{base.revision}", compute_digest(checkpoint.sha256, base.sha256, length=64)
