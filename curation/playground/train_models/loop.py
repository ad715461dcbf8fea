"""The loop of all trainers: a budget, a learning rate with warm-up and cosine, averaged weights, a record."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

import torch

RECORD_FILE: Final = "training.json"
_PACKAGES: Final = ("torch", "transformers", "segment-anything", "open-clip-torch", "onnxruntime", "numpy")
Metrics = dict[str, float]
P = ParamSpec("P")
T = TypeVar("T")


def disable_gradients(function: Callable[P, T]) -> Callable[P, T]:
    """Apply `torch.no_grad` and keep the function's types."""
    return cast(Callable[P, T], torch.no_grad()(function))


@dataclass(frozen=True, slots=True)
class TrainingBudget:
    """The length of a training: `steps`, or `minutes` of wall time, whichever ends first."""

    minutes: float
    steps: int | None = None
    evaluate_every: float = 3.0  # minutes between two evaluations, each of which saves
    threads: int = 2  # at most; on a busy machine one thread is often faster than two


@dataclass(slots=True)
class TrainingRecipe:
    """The parts that a trainer provides: the model, its loss, its evaluation and its files.

    `loss`: (step) -> scalar; it draws its own batch from the seed and the step. `evaluate`: averaged model ->
    held-out metrics. `save`: averaged model -> files in the output folder.
    """

    role: str
    model: torch.nn.Module
    loss: Callable[[torch.nn.Module, int], torch.Tensor]
    evaluate: Callable[[torch.nn.Module], Metrics]
    save: Callable[[torch.nn.Module, Path], None]
    seed: int
    rate: float = 1e-3
    decay: float = 0.02
    clip: float = 1.0
    average: float = 0.995
    details: dict[str, Any] = field(default_factory=dict)


def train_recipe(
    recipe: TrainingRecipe, budget: TrainingBudget, output: Path, log_line: Callable[[str], None] = print
) -> Metrics:
    """Train until the budget is spent.

    Every `evaluate_every` minutes, evaluate and save the averaged weights.

    Batches are a function of seed and step. The learning rate is a function of the spent share of the budget.
    So a run that ends by its steps is the same on every machine. `OUTPUT.resume` beside the folder holds the
    state for continuing after an interruption; it is removed at the end.

    Returns:
        The metrics of the weights that were saved last.
    """
    pace = _ThreadTuner(budget.threads)
    output.mkdir(parents=True, exist_ok=True)
    model = recipe.model.train()
    averaged = copy.deepcopy(model).eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    flat = [p for p in parameters if p.ndim < 2]
    wide = [p for p in parameters if p.ndim >= 2]
    groups = [{"params": wide, "weight_decay": recipe.decay}, {"params": flat, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
    started = last_look = time.monotonic()
    history: list[dict[str, Any]] = []
    recent: list[float] = []
    metrics: Metrics = {}
    step = 0
    paused = 0.0  # evaluation does not count against the budget of training
    resume = output.with_name(output.name + ".resume")
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        step, history = state["step"], state["history"]
        started -= 60 * state["minutes"]
        log_line(f"continuing from step {step}")
    while True:
        now = time.monotonic()
        spent = (now - started - paused) / (60 * budget.minutes)
        if budget.steps is not None:
            spent = max(spent, step / budget.steps)
        over = spent >= 1
        if over or now - last_look >= 60 * budget.evaluate_every:
            metrics = recipe.evaluate(averaged)
            mean = sum(recent) / max(1, len(recent))
            recent.clear()
            minutes = round((now - started) / 60, 2)
            plain = {name: float(value) for name, value in metrics.items()}  # readable without unpickling
            entry = {"step": step, "minutes": minutes, "loss": round(mean, 4), **plain}
            history.append(entry)
            log_line(" ".join(f"{key}={value:.4g}" for key, value in entry.items()))
            recipe.save(averaged, output)
            _write_record(recipe, budget, output, history, parameters)
            last_look = time.monotonic()
            paused += last_look - now
            if over:
                resume.unlink(missing_ok=True)
                return metrics
            state = {"model": model.state_dict(), "averaged": averaged.state_dict(), "step": step}
            state |= {"optimizer": optimizer.state_dict(), "history": history, "minutes": minutes}
            partial = resume.with_name(resume.name + ".part")
            torch.save(state, partial)
            partial.replace(resume)
        share = min(1.0, spent)
        rate = (
            recipe.rate * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        pace.begin_step(step)
        loss = recipe.loss(model, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        pace.end_step(step)
        recent.append(float(loss.detach()))
        step += 1
        _update_average(averaged, model, min(recipe.average, (step + 1) / (step + 10)))


class _ThreadTuner:
    """Chooses the number of threads: it times a few steps with one and with all, and uses the faster."""

    _ROUND: Final = 60

    def __init__(self, most: int) -> None:
        self._most, self._took, self._began = most, {1: 0.0, most: 0.0}, 0.0
        torch.set_num_threads(most)

    def begin_step(self, step: int) -> None:
        phase = step % self._ROUND
        if phase == 0:
            self._took = {1: 0.0, self._most: 0.0}
        if phase in (0, 6):
            torch.set_num_threads(1 if phase == 0 else self._most)
        elif phase == 12:
            torch.set_num_threads(min(self._took, key=lambda threads: self._took[threads]))
        self._began = time.monotonic()

    def end_step(self, step: int) -> None:
        phase = step % self._ROUND
        if phase < 12:
            self._took[1 if phase < 6 else self._most] += time.monotonic() - self._began


@disable_gradients
def _update_average(into: torch.nn.Module, model: torch.nn.Module, keep: float) -> None:
    """Move averaged weights towards the current ones; buffers (counts, running means) are copied."""
    theirs = dict(model.named_parameters())
    for name, parameter in into.named_parameters():
        parameter.lerp_(theirs[name], 1 - keep)
    buffers = dict(model.named_buffers())
    for name, buffer in into.named_buffers():
        buffer.copy_(buffers[name])


def _write_record(
    recipe: TrainingRecipe,
    budget: TrainingBudget,
    output: Path,
    history: list[dict[str, Any]],
    parameters: list[torch.nn.Parameter],
) -> None:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    steps = "" if budget.steps is None else f" --steps {budget.steps}"
    command = f"reprise playground train {recipe.role} --minutes {budget.minutes:g}{steps}"
    command += f" --seed {recipe.seed}"
    record = {
        "role": recipe.role,
        "command": command,
        "seed": recipe.seed,
        "minutes": history[-1]["minutes"],
        "steps": history[-1]["step"],
        "threads": budget.threads,
        "parameters": sum(p.numel() for p in parameters),
        "reached": {k: v for k, v in history[-1].items() if k not in ("step", "minutes", "loss")},
        "versions": found,
        **recipe.details,
        "history": history,
    }
    (output / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
