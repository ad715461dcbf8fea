"""The trainer of each role, the length of its training, and the folder of its shipped model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from curation.models.profiles import PLAYGROUND_WEIGHTS
from reprise.errors import RepriseError

if TYPE_CHECKING:  # the loop needs torch, which only training imports
    from curation.playground.train_models.loop import Metrics


@dataclass(frozen=True, slots=True)
class Trainer:
    """The trainer of the model of a role."""

    module: str
    train: str  # a function of the module that takes (output, *, seed, budget)
    steps: int  # length of a run unless the command names another
    needs: str


TRAINERS: Final[Mapping[str, Trainer]] = {
    "detector": Trainer("grounding", "train_detector", 4000, "transformers, groundingdino-py"),
    "faces": Trainer("faces", "train_faces", 3000, "insightface, onnx, onnxruntime"),
    "scorer": Trainer("clip", "train_scorer", 3000, "open-clip-torch, transformers"),
    "segmenter": Trainer("segmenting", "train_segmenter", 2600, "segment-anything, transformers"),
}


def get_shipped_folder(role: str) -> Path:
    """The folder of a role's trained checkpoint inside the package.

    Raises:
        RepriseError: it is not there; the message names the command that makes it.
    """
    folder = PLAYGROUND_WEIGHTS / role
    if not (folder / "training.json").exists():
        command = f"reprise playground train {role} --output {folder}"
        raise RepriseError(f"no playground checkpoint at {folder}: make it with {command}")
    return folder


def train_role(
    role: str, output: Path, *, seed: int, minutes: float, steps: int | None, threads: int
) -> Metrics:
    """Train the model of one role into `output`; return the metrics of the saved weights.

    Raises:
        RepriseError: there is no trainer for the role, or a package that it needs is missing.
    """
    if role not in TRAINERS:
        raise RepriseError(f"no trainer for role {role!r}; known: {', '.join(TRAINERS)}")
    trainer = TRAINERS[role]
    try:
        from curation.playground.train_models.loop import TrainingBudget

        module = importlib.import_module(f"curation.playground.train_models.{trainer.module}")
        run = cast(Callable[..., Any], getattr(module, trainer.train))
        budget = TrainingBudget(minutes=minutes, steps=steps or trainer.steps, threads=threads)
        return cast("Metrics", run(output, seed=seed, budget=budget))
    except ImportError as error:
        raise RepriseError(f"training the {role} needs {trainer.needs}: {error}") from error
