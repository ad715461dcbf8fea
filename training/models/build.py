"""The family of a model: found by the class of its transformer, built for the sizes of its parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprise.errors import RepriseError
from training.config import ModelConfig
from training.models.cogvideox import CogVideoXFamily
from training.models.components import read_config
from training.models.family import Family
from training.models.video_size import get_patch, get_vae_scales
from training.models.wan import WanFamily

FamilyClass = type[WanFamily] | type[CogVideoXFamily]

FAMILIES: dict[str, FamilyClass] = {family.name: family for family in (WanFamily, CogVideoXFamily)}


def build_family(config: ModelConfig) -> Family:
    """Build the family that `model.family` names; auto: that of the transformer's class.

    Raises:
        RepriseError: there is no transformer, or it is of no known family.
    """
    transformer = read_config(config.path, config.revision, "transformer")
    named = None if config.family == "auto" else FAMILIES[config.family]
    family = named or find_family(transformer, config.path)
    return family(get_patch(transformer), *_read_scales(config.path, transformer))


def find_family(transformer: Mapping[str, Any], path: str | Path) -> FamilyClass:
    """Find the family of a transformer by the class that its config names.

    Args:
        transformer: the transformer's config.
        path: of the model, for the message.

    Raises:
        RepriseError: no family has this class.
    """
    name = transformer.get("_class_name", "")
    for family in FAMILIES.values():
        if family.transformer == name:
            return family
    known = ", ".join(sorted(family.transformer for family in FAMILIES.values()))
    raise RepriseError(f"{path} holds a {name or '?'}, which is not supported; known are {known}")


def _read_scales(path: str, transformer: Mapping[str, Any]) -> tuple[int, int]:
    """Frames and pixels per latent, from the folder's VAE.

    The VAE of a hub model is not fetched for this: its transformer tells the published VAEs apart.
    """
    file = Path(path, "vae", "config.json")
    if file.is_file():
        return get_vae_scales(json.loads(file.read_text(encoding="utf-8")))
    # Wan 2.2 TI2V-5B has 48 channels and 16 pixels to a latent.
    return 4, 16 if transformer.get("out_channels", 16) == 48 else 8
