"""The profiles: the backend and checkpoint of each role for which the config names none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from curation.model_spec import ModelSpec
from curation.models.backends import CLASSICAL, ROLES, find_backend, is_base
from curation.models.catalogue import build_spec, list_published

# The tiny checkpoints that come with the package, one folder a role.
PLAYGROUND_WEIGHTS: Final = Path(__file__).resolve().parents[1] / "playground" / "weights"
_CLASSICAL_SPEC: Final = ModelSpec(backend=CLASSICAL)


def list_classical_specs() -> dict[str, ModelSpec]:
    """List role -> spec of the backends that need no download."""
    return {role: _CLASSICAL_SPEC for role in ROLES if find_backend(role, CLASSICAL)}


def list_pretrained_specs() -> dict[str, ModelSpec]:
    """List role -> spec of the published checkpoints that the catalogue names as defaults."""
    return {
        entry.role: build_spec(entry)
        for entry in list_published("pretrained")
        if entry.default and not is_base(entry.role, entry.name)
    }


def list_playground_specs() -> dict[str, ModelSpec]:
    """List role -> spec of the shipped checkpoints, which the backends of real checkpoints load.

    The painting roles have classical backends, because no small model learns to paint in minutes. Videos of
    the playground have captions, so it needs no captioner.
    """
    return {
        # The threshold is low because `filter.label_min` also needs the weak detections of competing names.
        "detector": ModelSpec(
            backend="grounding-dino-hf",
            checkpoint=str(PLAYGROUND_WEIGHTS / "detector"),
            options={"box_threshold": 0.05, "text_threshold": 0.05, "pool": "mean"},
        ),
        "segmenter": ModelSpec(backend="sam-original", checkpoint=str(PLAYGROUND_WEIGHTS / "segmenter")),
        "scorer": ModelSpec(backend="open-clip", checkpoint=str(PLAYGROUND_WEIGHTS / "scorer")),
        # These are the scorer's weights. Their image encoder separates a red star from every other thing, but
        # not from another red star.
        "embedder": ModelSpec(backend="open-clip-embedder", checkpoint=str(PLAYGROUND_WEIGHTS / "scorer")),
        "faces": ModelSpec(
            backend="insightface", checkpoint=str(PLAYGROUND_WEIGHTS / "faces"), options={"det_sizes": [128]}
        ),
        "inpainter": _CLASSICAL_SPEC,
        "variator": _CLASSICAL_SPEC,
    }


PROFILES: Final[dict[str, dict[str, ModelSpec]]] = {
    "classical": list_classical_specs(),
    "pretrained": list_pretrained_specs(),
    "playground": list_playground_specs(),
}
