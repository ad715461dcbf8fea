"""List what a machine lacks to run a profile: packages, checkpoints, a GPU, memory."""

from __future__ import annotations

from collections.abc import Sequence

from curation.config import CurationConfig
from curation.model_spec import ModelSpec
from curation.models import backends, catalogue, checkpoints, registry
from curation.models.backends import Backend
from reprise.errors import RepriseError

_LONGEST_LIST = 3  # most names in one message


def list_profile_gaps(
    profile: str,
    size: str | None = None,
    *,
    memory_gb: float | None = None,
    gpu_memory_gb: Sequence[float] = (),
) -> list[str]:
    """List what the models of a profile lack on this machine; nothing is loaded.

    Args:
        profile: `classical`, `pretrained` or `playground`.
        size: `small`, `base` or `large`, of `pretrained` alone; None: its default.
        memory_gb: main memory of this machine, GB; None: unknown, so not compared.
        gpu_memory_gb: memory of each of its GPUs, GB.

    Returns:
        One message per gap, with what to do; []: the profile can run here.
    """
    config = CurationConfig.model_validate({"profile": profile, "models": {"size": size}})
    records = [
        record
        for role in backends.ROLES
        if (spec := registry.get_model_spec(config, role)) is not None
        and (record := backends.find_backend(role, spec.backend)) is not None
    ]
    return [
        *_list_missing_packages(records),
        *_list_missing_checkpoints(config),
        *_list_short_hardware(config, records, memory_gb, gpu_memory_gb),
    ]


def describe_models(config: CurationConfig) -> list[str]:
    """Describe the model of each role: backend, checkpoint, bytes, and whether it is on this machine.

    Returns:
        One line per role, and one per base of a prior; the last line has the sum of the bytes to fetch.
    """
    lines, sizes = [], {}
    checkpoint_specs = registry.list_checkpoint_specs(config)
    for role in backends.ROLES:
        spec = registry.get_model_spec(config, role)
        if spec is None or spec.checkpoint is None:
            lines.append(f"{role}: {spec.backend if spec else 'off'}")
        for _, name, each in (found for found in checkpoint_specs if found[0] == role):
            weight_bytes = _get_weight_bytes(each.checkpoint)
            here = _is_present(each)
            if not here:
                sizes[each.checkpoint] = weight_bytes
            state = "here" if here else "not here"
            lines.append(f"{role}: {name} {each.checkpoint}, {weight_bytes:,} bytes, {state}")
    return [*lines, f"to fetch: {sum(sizes.values()):,} bytes"]


def _is_present(spec: ModelSpec) -> bool:
    try:
        checkpoints.locate_checkpoint(spec.checkpoint or "", spec.revision)
    except RepriseError:
        return False
    return True


def _list_missing_packages(records: Sequence[Backend]) -> list[str]:
    missing: dict[str, list[str]] = {}
    for record in records:
        missing.setdefault(record.extra, []).extend(registry.list_missing_packages(record))
    return [
        f"{', '.join(dict.fromkeys(packages))}: pip install '{extra}'"
        for extra, packages in missing.items()
        if packages
    ]


def _list_missing_checkpoints(config: CurationConfig) -> list[str]:
    absent, damaged = [], []
    for role, name, spec in registry.list_checkpoint_specs(config):
        try:
            assert spec.checkpoint is not None
            path, _ = checkpoints.locate_checkpoint(spec.checkpoint, spec.revision)
        except RepriseError:
            absent.append((role, name, spec))
            continue
        try:
            checkpoints.verify_checkpoint(path)
        except RepriseError as error:
            damaged.append(str(error))
    if not absent:
        return damaged
    sizes = {
        spec.checkpoint: _get_weight_bytes(spec.checkpoint) for _, _, spec in absent
    }  # each address once
    names = [name for _, name, _ in absent]
    shown = ", ".join(names[:_LONGEST_LIST]) + (", ..." if len(names) > _LONGEST_LIST else "")
    count = "1 checkpoint" if len(absent) == 1 else f"{len(absent)} checkpoints"
    pull = "reprise models pull" + (f" --size {config.models.size}" if config.models.size else "")
    return [f"{count} ({shown}; {sum(sizes.values()) / 1e9:.3g} GB): {pull}", *damaged]


def _list_short_hardware(
    config: CurationConfig,
    records: Sequence[Backend],
    memory_gb: float | None,
    gpu_memory_gb: Sequence[float],
) -> list[str]:
    gaps = [f"a GPU for {record.name}" for record in records if record.resources.needs_gpu]
    if gpu_memory_gb:
        gaps = []
    # Each model has its own worker, so the largest model decides. A GPU holds the weights itself, and main
    # memory holds them only while they are read.
    largest: dict[str, float] = {}
    for role, _, spec in registry.list_checkpoint_specs(config):
        largest[role] = largest.get(role, 0) + _get_weight_bytes(spec.checkpoint) / 1e9
    room = max([*gpu_memory_gb, memory_gb or 0])
    for role, size in largest.items():
        if memory_gb is not None and size > room:
            gaps.append(f"memory for the {role}: its weights have {size:.0f} GB, this machine has {room:.0f}")
    return gaps


def _get_weight_bytes(source: str | None) -> int:
    entry = catalogue.find_published(source) if source else None
    return (entry.weight_bytes if entry else None) or 0
