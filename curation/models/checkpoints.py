"""Where a checkpoint is, and what exactly it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from curation.errors import RepriseError
from curation.models.spec import ModelSpec

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine. `sha256` is over its weight files, in order of their names."""

    path: Path
    source: str
    revision: str
    sha256: str


def resolve(spec: ModelSpec) -> Checkpoint:
    """The checkpoint of a spec, on this machine's disk.

    Raises:
        RepriseError: it is not here; the line says what to fetch and where it goes.
    """
    if spec.checkpoint is None:
        raise RepriseError(f"models: backend {spec.backend} needs a checkpoint: a path or a hub id")
    path = Path(spec.checkpoint).expanduser()
    if not path.exists():
        raise RepriseError(f"no checkpoint at {path}")
    sha256 = weights_digest(path)
    return Checkpoint(path, spec.checkpoint, spec.revision or sha256[:12], sha256)


def weights_digest(path: Path) -> str:
    """SHA-256 over the weight files of a checkpoint."""
    weights = {".safetensors", ".pth", ".pt", ".bin", ".onnx", ".ckpt"}
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in weights)
    state = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                state.update(chunk)
    return state.hexdigest()
