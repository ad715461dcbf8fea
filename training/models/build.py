"""The family of a model: found by the class of its transformer, built for the sizes of its parts.

A new family is a file beside this one and an entry of `FAMILIES`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprise.errors import RepriseError
from training.config import ModelConfig
from training.models.cogvideox import CogVideoXFamily
from training.models.components import check_one_transformer, read_config
from training.models.family import Family
from training.models.shape import TransformerShape
from training.models.video_size import get_patch, get_vae_scales
from training.models.wan import WanFamily

FamilyClass = type[WanFamily] | type[CogVideoXFamily]

#: By name, as `model.family` of the config and the manifest of latents have it.
FAMILIES: dict[str, FamilyClass] = {family.name: family for family in (WanFamily, CogVideoXFamily)}


def build_family(config: ModelConfig) -> Family:
    """Build the family that `model.family` names; auto: that of the transformer's class.

    Raises:
        RepriseError: there is no transformer or more than one, or it is of no known family.
    """
    transformer = read_config(config.path, config.revision, "transformer")
    check_one_transformer(config.path, config.revision)
    # The VAE of a hub model is not fetched for this: its transformer determines which published VAE it has.
    file = Path(config.path, "vae", "config.json")
    vae = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    named = None if config.family == "auto" else FAMILIES[config.family]
    family = named or find_family(transformer, config.path)
    return _make_family(family, transformer, vae)


def make_family(
    transformer: Mapping[str, Any], vae: Mapping[str, Any] | None = None, path: str | Path = "the model"
) -> Family:
    """Make the family of a model from the configs of its parts.

    Args:
        transformer: config of the transformer, with its `_class_name`.
        vae: config of the VAE; None: that of the published model with this transformer.
        path: of the model, for the message.

    Raises:
        RepriseError: the transformer is of no known family.
    """
    return _make_family(find_family(transformer, path), transformer, vae)


def make_shape(transformer: Mapping[str, Any], text_tokens: int | None = None) -> TransformerShape:
    """Read the sizes of a transformer from its config.

    Args:
        transformer: config of the transformer, with its `_class_name`.
        text_tokens: to which prompts are padded; None: as the released pipelines do.

    Raises:
        RepriseError: the transformer is of no known family.
    """
    return make_family(transformer).make_shape(transformer, text_tokens)


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


def _make_family(
    family: FamilyClass, transformer: Mapping[str, Any], vae: Mapping[str, Any] | None
) -> Family:
    scales = family.get_default_scales(transformer) if vae is None else get_vae_scales(vae)
    return family(get_patch(transformer), *scales)
