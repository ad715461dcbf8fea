"""Recorded tensors of the released code, where a folder has them. Sizes and settings are read from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

from training.config import PositionsConfig
from training.positions import convert_released_config

FOLDER = Path(os.environ.get("REPRISE_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


def names(pattern: str) -> list[Any]:
    """The files that fit, as parameters of a test; one skipped parameter where there are none."""
    found = sorted(path.name for path in FOLDER.glob(pattern))
    return found or [pytest.param(pattern, marks=pytest.mark.skip(reason=f"no {pattern} in {FOLDER}"))]


def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata (parsed) of one file; skips the test where it is absent."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"no {name} in {FOLDER}")
    with safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 (not a dict)


def positions_of(metadata: dict[str, Any]) -> PositionsConfig:
    """Convert the settings of a recording to named options; a plain word means the released yaml."""
    settings = metadata["settings"]
    flags = settings if isinstance(settings, dict) else {}
    return convert_released_config(
        **{key: value for key, value in flags.items() if key not in ("base", "refs")}
    )


def references_of(tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Recorded references as (B, C, 1, h, w) each; they are recorded as (b, n, c, h, w) or one by one."""
    if "refs" in tensors:
        return tuple(part.transpose(1, 2) for part in tensors["refs"].split(1, dim=1))
    listed = sorted(
        (key for key in tensors if key.startswith("ref") and key[3:].isdigit()), key=lambda k: int(k[3:])
    )
    return tuple(tensors[key].transpose(1, 2) for key in listed)


def frames_first(video: Tensor) -> Tensor:
    """(B, C, T, h, w) <-> (B, T, C, h, w)."""
    return video.transpose(1, 2)
