"""The profiles: the backend and checkpoint of each role for which the config names none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from curation.model_spec import ModelSpec
from curation.models.backends import CLASSICAL, ROLES, find_backend, is_base
from curation.models.catalogue import DEFAULT_SIZE, SIZES, build_spec, list_published

# The tiny checkpoints that come with the package, one folder a role.
PLAYGROUND_WEIGHTS: Final = Path(__file__).resolve().parents[1] / "playground" / "weights"
_CLASSICAL_SPEC: Final = ModelSpec(backend=CLASSICAL)


def list_classical_specs() -> dict[str, ModelSpec]:
    """List role -> spec of the backends that need no download."""
    return {role: _CLASSICAL_SPEC for role in ROLES if find_backend(role, CLASSICAL)}


def list_pretrained_specs(size: str = DEFAULT_SIZE) -> dict[str, ModelSpec]:
    """List role -> spec of the published checkpoints of one size.

    For a role of which a size has no checkpoint, the classical backend stands, if there is one.
    """
    published = {
        entry.role: build_spec(entry)
        for entry in list_published("pretrained", size=size)
        if not is_base(entry.role, entry.name)
    }
    return {**list_classical_specs(), **published}


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


def list_profile_specs(profile: str, size: str | None = None) -> dict[str, ModelSpec]:
    """List role -> spec of a profile.

    Args:
        profile: name of the profile.
        size: of `catalogue.SIZES`, for `pretrained` alone; None: its default.
    """
    if profile == "pretrained":
        return list_pretrained_specs(size or DEFAULT_SIZE)
    return list_classical_specs() if profile == "classical" else list_playground_specs()


# Every profile with every size that it has.
PROFILES: Final[tuple[tuple[str, str | None], ...]] = (
    ("classical", None),
    *(("pretrained", size) for size in SIZES),
    ("playground", None),
)
