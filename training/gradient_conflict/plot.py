"""The chart of a run's gradient conflict, like Figures 3, 5 and 9 of proxy replay."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from reprise.errors import RepriseError
from training.gradient_conflict.measure import fit_decay

COSINE_KEY, NORM_PREFIX = "conflict/cosine", "conflict/norm/"


def plot_conflict(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Draw the cosine over the steps with a exp(-rate t) fitted to it, and the norms beside it.

    Args:
        records: with `step`, `conflict/cosine` and `conflict/norm/<task>`, as metrics.jsonl has them.

    Returns:
        A PNG.

    Raises:
        RepriseError: no record holds a conflict.
    """
    from matplotlib.figure import Figure

    rows = [row for row in records if row.get(COSINE_KEY) is not None]
    if not rows:
        raise RepriseError("the run has no gradient conflict: train with conflict.every set")
    steps = [int(row["step"]) for row in rows]
    cosines = [float(row[COSINE_KEY]) for row in rows]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.axhline(0, color="0.7", linewidth=0.8)
    left.plot(steps, cosines, ".-", linewidth=0.8, markersize=3, label="cosine")
    decay = fit_decay(steps, cosines)
    if decay is not None:
        label = f"{decay.initial:.2f} exp({-decay.rate:.2g} t), R² {decay.r2:.2f}"
        left.plot(steps, decay.predict_cosines(steps), "--", label=label)
    left.set(xlabel="step", ylabel="cosine of the two gradients", ylim=(-1, 1))
    left.legend(frameon=False)
    for name in sorted({key for row in rows for key in row if key.startswith(NORM_PREFIX)}):
        right.plot(
            steps, [row.get(name) for row in rows], linewidth=0.9, label=name.removeprefix(NORM_PREFIX)
        )
    right.set(xlabel="step", ylabel="norm of the gradient", yscale="log")
    right.legend(frameon=False)
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=150)
    return memory.getvalue()
