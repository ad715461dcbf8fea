"""Which family a model is of."""

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
from training.models.video_size import get_vae_scales
from training.models.wan import WanFamily

_FAMILY_CLASSES = {"WanTransformer3DModel": "wan", "CogVideoXTransformer3DModel": "cogvideox"}


def build_family(config: ModelConfig) -> Family:
    """The family that `model.family` names; auto: that of the transformer's class.

    Raises:
        RepriseError: there is no transformer, or it is of no family that can be trained.
    """
    settings = read_config(config.path, config.revision, "transformer")
    found = settings.get("_class_name", "")
    name = _FAMILY_CLASSES.get(found) if config.family == "auto" else config.family
    if name == "wan":
        patch = tuple(settings.get("patch_size", (1, 2, 2)))
        return WanFamily((patch[0], patch[1], patch[2]), *_read_scales(config.path, settings))
    if name == "cogvideox":
        side = int(settings.get("patch_size", 2))
        return CogVideoXFamily((1, side, side), *_read_scales(config.path, settings))
    raise RepriseError(
        f"{config.path}: a transformer of the class {found or '?'} cannot be trained (known: "
        f"{', '.join(sorted(_FAMILY_CLASSES))})"
    )


def _read_scales(path: str, transformer: Mapping[str, Any]) -> tuple[int, int]:
    """Frames and pixels per latent, as the folder's VAE says; of a hub model, whose VAE is not fetched for it
    alone, as the transformer tells the published VAEs apart."""
    file = Path(path, "vae", "config.json")
    if file.is_file():
        return get_vae_scales(json.loads(file.read_text(encoding="utf-8")))
    # Wan 2.2 TI2V-5B has 48 channels and 16 pixels to a latent.
    return 4, 16 if transformer.get("out_channels", 16) == 48 else 8
