"""List what a machine lacks to run a profile: packages, checkpoints, a GPU, memory."""

from __future__ import annotations

from collections.abc import Sequence

from curation.config import CurationConfig
from curation.models import backends, catalogue, checkpoints, registry
from curation.models.backends import Backend
from reprise.errors import RepriseError

_LONGEST_LIST = 3  # most names in one message


def list_profile_gaps(
    profile: str, *, memory_gb: float | None = None, gpu_memory_gb: Sequence[float] = ()
) -> list[str]:
    """List what the models of a profile lack on this machine; nothing is loaded.

    Args:
        profile: `classical`, `pretrained` or `playground`.
        memory_gb: main memory of this machine, GB; None: unknown, so not compared.
        gpu_memory_gb: memory of each of its GPUs, GB.

    Returns:
        One message per gap, with what to do; []: the profile can run here.
    """
    config = CurationConfig.model_validate({"profile": profile})
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
    sizes = [_get_gigabytes(spec.checkpoint) for _, _, spec in absent]
    names = [name for _, name, _ in absent]
    shown = ", ".join(names[:_LONGEST_LIST]) + (", ..." if len(names) > _LONGEST_LIST else "")
    count = "1 checkpoint" if len(absent) == 1 else f"{len(absent)} checkpoints"
    return [f"{count} ({shown}; {sum(sizes):.0f} GB): reprise models pull", *damaged]


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
        largest[role] = largest.get(role, 0) + _get_gigabytes(spec.checkpoint)
    room = max([*gpu_memory_gb, memory_gb or 0])
    for role, size in largest.items():
        if memory_gb is not None and size > room:
            gaps.append(f"memory for the {role}: its weights have {size:.0f} GB, this machine has {room:.0f}")
    return gaps


def _get_gigabytes(source: str | None) -> float:
    entry = catalogue.find_published(source) if source else None
    return (entry.gigabytes if entry else None) or 0.0
