"""`curves.png`: losses, gradient norm, learning rate and speed of a run."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reprise.errors import RepriseError
from training.callbacks.metrics_file import read_metrics
from training.loop.callback import Callback

if TYPE_CHECKING:
    from reprise.storage import Storage
    from training.loop.state import RunState

CURVES_FILE = "curves.png"
Series = dict[str, tuple[list[int], list[float]]]
# Title, prefixes of what is drawn in it, logarithmic.
PANELS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("training loss", ("loss",), True),
    ("held-out loss by noise level", ("validation/",), False),
    ("gradient norm, before clipping", ("grad_norm",), True),
    ("learning rate", ("lr",), False),
    ("tokens per second", ("speed/tokens_per_second",), False),
    ("share of time: MFU, waiting for data", ("speed/mfu", "speed/data_wait"), False),
)


class Curves(Callback):
    """Draw `curves.png` with every checkpoint and at the end, on the main worker."""

    def on_checkpoint(self, state: RunState, path: str) -> None:
        """See `Callback.on_checkpoint`."""
        self._draw_file(state)

    def on_end(self, state: RunState, error: BaseException | None) -> None:
        """See `Callback.on_end`."""
        self._draw_file(state)

    def _draw_file(self, state: RunState) -> None:
        if state.world.is_main:
            draw_curves(state.folder.root, state.config.run.name)


def draw_curves(folder: Storage, title: str) -> bool:
    """Draw a run's `metrics.jsonl` into its `curves.png`; return False if there is nothing to draw.

    Raises:
        RepriseError: the folder cannot be written to.
    """
    found = collect_series(read_metrics(folder))
    if not found:
        return False
    folder.write_bytes(CURVES_FILE, plot_panels(found, title))
    return True


def collect_series(records: Iterable[Mapping[str, Any]]) -> Series:
    """Collect the records of a run as name -> (steps, values)."""
    found: Series = {}
    for record in records:
        for name, value in record.items():
            if name not in ("step", "time") and isinstance(value, int | float):
                steps, values = found.setdefault(name, ([], []))
                steps.append(record["step"])
                values.append(float(value))
    return found


def plot_panels(found: Series, title: str) -> bytes:
    """Plot a PNG with one panel for each kind of number that the run has."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RepriseError("matplotlib is missing: pip install 'reprise[train]'") from error

    panels = [(name, _select_names(found, prefixes), log) for name, prefixes, log in PANELS]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        panels = [("", list(found)[:8], False)]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for index, (name, members, log) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        for member in members:
            _plot_series(axes, member, *found[member])
        if log and all(min(found[member][1]) > 0 for member in members):
            axes.set_yscale("log")
        if len(members) > 1:
            axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    return buffer.getvalue()


def smooth_values(values: Sequence[float], weight: float = 0.95) -> list[float]:
    """Smooth values by an exponential mean, corrected for its bias at the start."""
    out, mean, mass = [], 0.0, 0.0
    for value in values:
        mean = weight * mean + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        out.append(mean / mass)
    return out


def _select_names(found: Series, prefixes: tuple[str, ...]) -> list[str]:
    names = [
        name
        for name in found
        if any(name == prefix or name.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)
    ]
    # With one task its loss and the loss are the same.
    return names[:1] if names[:1] == ["loss"] and len(names) == 2 else names[:12]


def _plot_series(axes: Any, name: str, steps: list[int], values: list[float]) -> None:
    if len(values) < 50:
        axes.plot(steps, values, marker=".", markersize=4, linewidth=1, label=name)
        return
    (drawn,) = axes.plot(steps, values, linewidth=0.6, alpha=0.3)
    axes.plot(steps, smooth_values(values), linewidth=1.4, color=drawn.get_color(), label=name)
