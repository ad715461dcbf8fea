"""The trained models of the playground profile: where they lie and how they are loaded.

`roles` says which trainer makes which; `grounding`, `segmenting`, `clip` and `faces` are the trainers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from curation.models.spec import ModelSpec

PLAYGROUND_WEIGHTS: Final = Path(__file__).resolve().parents[1] / "weights"


def list_playground_specs() -> dict[str, ModelSpec]:
    """What answers each role that the playground has a model for: the backends that real checkpoints use."""
    return {
        # Weak answers count, too: they say how near a rival's name comes (`filter.label_min`).
        "detector": ModelSpec(
            backend="grounding-dino-hf",
            checkpoint=str(PLAYGROUND_WEIGHTS / "detector"),
            options={"box_threshold": 0.05, "text_threshold": 0.05, "pool": "mean"},
        ),
        "segmenter": ModelSpec(backend="sam-original", checkpoint=str(PLAYGROUND_WEIGHTS / "segmenter")),
        "scorer": ModelSpec(backend="open-clip", checkpoint=str(PLAYGROUND_WEIGHTS / "scorer")),
        # The same weights: their picture side tells a red star from every other thing, though not two red
        # stars from each other.
        "embedder": ModelSpec(backend="open-clip-embedder", checkpoint=str(PLAYGROUND_WEIGHTS / "scorer")),
        "faces": ModelSpec(
            backend="insightface", checkpoint=str(PLAYGROUND_WEIGHTS / "faces"), options={"det_sizes": [128]}
        ),
    }
