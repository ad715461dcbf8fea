"""The gradients of two tasks compared: cosine, norms, their decay, and PCGrad. Pure functions.

Proxy replay (3.3, A.2) rests on phi(t) = cos(g_img(t), g_vid(t)), which it reports to decay exponentially to
zero. Gradients are mappings from parameter names to tensors. A rank may have only its shards of them:
products and squared norms are sums over elements, so the sum of `compute_moments` over all ranks is exact.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

Gradients = Mapping[str, Tensor]

ALL_PARAMETERS = "all"


@dataclass(frozen=True)
class GradientConflict:
    """Two gradients on the same weights."""

    cosine: float  # -1..1; 0 where either gradient is zero
    dot: float
    first_norm: float  # norm
    second_norm: float  # norm


@dataclass(frozen=True)
class DecayFit:
    """phi(t) = initial * exp(-rate * t), least squares."""

    initial: float
    rate: float  # per step; negative: it grows
    r2: float  # share of the variance about the mean that the curve explains; at most 1

    def predict_cosines(self, step: ArrayLike) -> Any:
        """Return the fitted cosine at a step or steps."""
        return self.initial * np.exp(-self.rate * np.asarray(step, np.float64))


def compute_moments(first: Gradients, second: Gradients, piece: int = 1 << 24) -> dict[str, Tensor]:
    """Compute <a, b>, |a|^2, |b|^2 of each parameter: (3,) float64 on the CPU.

    Both have the same names. The second may lie on the CPU: it is copied to the first one's device in pieces
    of at most `piece` elements. Only three numbers leave the device.
    """
    sums = {}
    for name, one in first.items():
        a, b = one.detach().flatten(), second[name].detach().flatten()
        total = torch.zeros(3, dtype=torch.float64, device=a.device)
        for begin in range(0, a.numel(), piece):
            x = a[begin : begin + piece].double()
            y = b[begin : begin + piece].to(a.device).double()
            total += torch.stack([x @ y, x @ x, y @ y])
        sums[name] = total
    if not sums:
        return {}
    return dict(zip(sums, torch.stack(list(sums.values())).cpu(), strict=True))


def compute_conflict(sums: Tensor) -> GradientConflict:
    """Compute the comparison from (3,) sums of `compute_moments`."""
    dot, first, second = (float(value) for value in sums)
    norms = math.sqrt(first), math.sqrt(second)
    scale = norms[0] * norms[1]
    return GradientConflict(dot / scale if scale > 0 else 0.0, dot, *norms)


def compare_groups(
    sums: Mapping[str, Tensor], groups: Sequence[Callable[[str], str]]
) -> dict[str, GradientConflict]:
    """Compare over all parameters ("all") and over each group; the functions map a name to its group."""
    added: dict[str, Tensor] = {}
    for name, values in sums.items():
        for group in (ALL_PARAMETERS, *(function(name) for function in groups)):
            added[group] = added[group] + values if group in added else values
    return {group: compute_conflict(values) for group, values in added.items()}


def make_layer_grouper(blocks: int, groups: int = 4) -> Callable[[str], str]:
    """Return a function that names a parameter's group of layers: "layers/embedding", "layers/00-10", ..."""
    size = -(-blocks // groups)

    def get_layer_group(parameter: str) -> str:
        found = re.search(r"(?:^|\.)(?:transformer_blocks|blocks)\.(\d+)\.", parameter)
        if found:
            first = int(found[1]) // size * size
            return f"layers/{first:02d}-{min(first + size, blocks) - 1:02d}"
        return (
            "layers/head"
            if re.search(r"(?:^|\.)(norm_final|norm_out|proj_out|head)", parameter)
            else "layers/embedding"
        )

    return get_layer_group


def get_module_kind(parameter: str) -> str:
    """Return the kind of a parameter's module: "modules/attention", "modules/feed_forward", ..."""
    if re.search(r"\.attn2\.", parameter):
        return "modules/cross_attention"
    if re.search(r"\.attn1\.|\.self_attn\.", parameter):
        return "modules/attention"
    if re.search(r"\.(ff|ffn)\.", parameter):
        return "modules/feed_forward"
    if re.search(r"norm|scale_shift_table|modulation", parameter):
        return "modules/norm"
    return "modules/embedding" if "embed" in parameter or "proj" in parameter else "modules/other"


def fit_decay(steps: Sequence[float], values: Sequence[float]) -> DecayFit | None:
    """Fit a exp(-rate t) by least squares; None: fewer than three points, or all values are zero.

    For each rate the best a is a ratio of sums, so only the rate is searched: on a grid over the rates that
    the recorded span can distinguish, then by golden section around the best.
    """
    t, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    finite = np.isfinite(y)
    t, y = t[finite], y[finite]
    if len(t) < 3 or not np.any(y) or t.max() == t.min():
        return None
    start, span = t.min(), t.max() - t.min()
    unit = (t - start) / span

    def fit_amplitude(rate: float) -> tuple[float, float]:
        curve = np.exp(-rate * unit)
        a = float(curve @ y / (curve @ curve))
        return float(np.square(y - a * curve).sum()), a

    shortest = float(np.diff(np.unique(unit)).min())
    fastest = 10.0 / shortest  # with a faster decay only the first point would count
    grid = np.concatenate([np.linspace(-5.0, 5.0, 101), np.geomspace(5.0, max(fastest, 5.1), 200)])
    errors = [fit_amplitude(rate)[0] for rate in grid]
    middle = int(np.argmin(errors))
    low, high = grid[max(middle - 1, 0)], grid[min(middle + 1, len(grid) - 1)]
    rate = _search_golden_section(lambda value: fit_amplitude(value)[0], float(low), float(high))
    error, a = fit_amplitude(rate)
    variance = float(np.square(y - y.mean()).sum())
    per_step = rate / span
    return DecayFit(a * math.exp(per_step * start), per_step, 1.0 - error / variance if variance > 0 else 1.0)


def project_gradients(
    gradients: Gradients, other: Gradients, sums: Tensor | None = None
) -> dict[str, Tensor]:
    """Project by PCGrad (Yu et al. 2020; proxy replay Eq. 20): remove what points against `other`.

    g - <g, other> / |other|^2 other if <g, other> < 0, else g.

    Args:
        gradients: g.
        other: of another task.
        sums: of `compute_moments` over all parameters and ranks; a rank that has only shards must give it.
    """
    if sums is None:
        found = compute_moments(gradients, other)
        sums = torch.stack(list(found.values())).sum(0) if found else torch.zeros(3)
    dot, _, square = (float(value) for value in sums)
    if dot >= 0 or square == 0:
        return dict(gradients)
    return {name: one - (dot / square) * other[name].to(one) for name, one in gradients.items()}


class GradientBuffer:
    """The last k gradients of each task, on the CPU: PCGrad projects another task's gradient against them.

    Figure 10 compares sizes of such a buffer without further details. Here the mean of a task's last k
    gradients estimates its gradient, and the other task's is projected against that once.
    """

    def __init__(self, size: int = 1) -> None:
        if size < 1:
            raise ValueError(f"the size of a buffer must be at least 1, not {size}")
        self.size = size
        self.gradients_by_task: dict[str, deque[dict[str, Tensor]]] = {}

    def add_gradients(self, task: str, gradients: Gradients) -> None:
        """Add a copy of a task's gradient (float32, CPU); the oldest of k + 1 is removed."""
        copy = {name: one.detach().to("cpu", torch.float32, copy=True) for name, one in gradients.items()}
        self.gradients_by_task.setdefault(task, deque(maxlen=self.size)).append(copy)

    def average_gradients(self, task: str) -> dict[str, Tensor] | None:
        """Average the buffered gradients of a task; None before its first step."""
        held = self.gradients_by_task.get(task)
        if not held:
            return None
        return {name: torch.stack([one[name] for one in held]).mean(0) for name in held[0]}

    def list_other_tasks(self, task: str) -> list[str]:
        """List the other tasks with buffered gradients, sorted by name."""
        return sorted(name for name, held in self.gradients_by_task.items() if name != task and held)

    def state_dict(self) -> dict[str, Any]:
        """Return the content for a checkpoint."""
        return {
            "size": self.size,
            "held": {task: list(held) for task, held in self.gradients_by_task.items()},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Load the content of a checkpoint."""
        self.gradients_by_task = {task: deque(held, maxlen=self.size) for task, held in saved["held"].items()}


def _search_golden_section(
    error: Callable[[float], float], low: float, high: float, rounds: int = 80
) -> float:
    """The minimum of a function that has one in [low, high]."""
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    errors = error(left), error(right)
    for _ in range(rounds):
        if errors[0] < errors[1]:
            high, right, errors = right, left, (0.0, errors[0])
            left = high - ratio * (high - low)
            errors = error(left), errors[1]
        else:
            low, left, errors = left, right, (errors[1], 0.0)
            right = low + ratio * (high - low)
            errors = errors[0], error(right)
    return (low + high) / 2.0
