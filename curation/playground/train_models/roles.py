"""Which trainer makes which role, how long it takes, and whether its trained model is here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from curation.models.profiles import PLAYGROUND_WEIGHTS
from reprise.errors import RepriseError

if TYPE_CHECKING:  # the loop needs torch, which only training does
    from curation.playground.train_models.loop import Metrics


@dataclass(frozen=True, slots=True)
class Trainer:
    """`module` has a `train(output, *, seed, budget)`; `steps` is how long a run is unless it is told."""

    module: str
    steps: int
    needs: str


TRAINERS: Final[Mapping[str, Trainer]] = {
    "detector": Trainer("grounding", 4000, "transformers, groundingdino-py"),
    "faces": Trainer("faces", 3000, "insightface, onnx, onnxruntime"),
    "scorer": Trainer("clip", 3000, "open-clip-torch, transformers"),
    "segmenter": Trainer("segmenting", 2600, "segment-anything, transformers"),
}


def get_shipped_folder(role: str) -> Path:
    """The folder of a role's trained checkpoint inside the package.

    Raises:
        RepriseError: it is not there; the line says how to make it.
    """
    folder = PLAYGROUND_WEIGHTS / role
    if not (folder / "training.json").exists():
        command = f"reprise playground train {role} --output {folder}"
        raise RepriseError(f"no playground checkpoint at {folder}: make it with {command}")
    return folder


def train_role(
    role: str, output: Path, *, seed: int, minutes: float, steps: int | None, threads: int
) -> Metrics:
    """Train one role into `output`; the metrics of what was saved.

    Raises:
        RepriseError: no such role, or a package that its trainer needs is missing.
    """
    if role not in TRAINERS:
        raise RepriseError(f"no trainer for role {role!r}; known: {', '.join(TRAINERS)}")
    trainer = TRAINERS[role]
    try:
        from curation.playground.train_models.loop import TrainingBudget

        module = importlib.import_module(f"curation.playground.train_models.{trainer.module}")
        run = cast(Callable[..., Any], module.train)
        budget = TrainingBudget(minutes=minutes, steps=steps or trainer.steps, threads=threads)
        return cast("Metrics", run(output, seed=seed, budget=budget))
    except ImportError as error:
        raise RepriseError(f"training the {role} needs {trainer.needs}: {error}") from error
