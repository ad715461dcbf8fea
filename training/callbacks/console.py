"""The line that shows the progress of a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from training.callbacks.log import Scalars
from training.cost.units import format_duration, format_si

if TYPE_CHECKING:
    from training.loop.state import RunState

_MAX_VALUES = 4  # of a record without a loss: a monitor of layers may record hundreds


class ConsoleWriter:
    """Print one line for each record."""

    def __init__(self, print_line: Callable[[str], None] = print) -> None:
        self._print_line = print_line
        self._steps = 0

    def start(self, state: RunState) -> None:
        """See `MetricsWriter.start`."""
        self._steps = state.config.steps

    def write(self, step: int, scalars: Scalars) -> None:
        """See `MetricsWriter.write`."""
        self._print_line(format_line(step, self._steps, scalars))

    def close(self) -> None:
        """See `MetricsWriter.close`."""


def format_line(step: int, steps: int, scalars: Mapping[str, Any]) -> str:
    """Format step, loss, speed, MFU, data wait, memory and time left; unknown values are left out."""

    def get_value(name: str) -> float | None:
        value = scalars.get(name)
        return float(value) if isinstance(value, int | float) else None

    parts = [f"step {step}/{steps}"]
    if (loss := get_value("loss")) is not None:
        parts.append(f"loss {loss:.4f}")
    if (norm := get_value("grad_norm")) is not None:
        parts.append(f"grad {norm:.3g}")
    if (tokens := get_value("speed/tokens_per_second")) is not None:
        parts.append(f"{format_si(tokens, '')} tokens/s")
    if (mfu := get_value("speed/mfu")) is not None:
        parts.append(f"MFU {100 * mfu:.1f} %")
    if (wait := get_value("speed/data_wait")) is not None:
        parts.append(f"data wait {100 * wait:.0f} %")
    if (memory := get_value("memory/peak_gib")) is not None:
        parts.append(f"{memory:.1f} GiB")
    if (left := get_value("eta_seconds")) is not None and step < steps:
        parts.append(f"{format_duration(left)} left")
    if len(parts) == 1:  # a record of validation or of a monitor
        values = {
            name: value for name in scalars if (value := get_value(name)) is not None and name != "time"
        }
        parts += [f"{name} {value:.4g}" for name, value in itertools.islice(values.items(), _MAX_VALUES)]
        if len(values) > _MAX_VALUES:
            parts.append(f"{len(values) - _MAX_VALUES} more in metrics.jsonl")
    return "  ".join(parts)
