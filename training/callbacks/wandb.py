"""Weights & Biases: needs `pip install wandb`, and `log.wandb=PROJECT`."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from reprise.errors import RepriseError
from training.callbacks.log import Scalars

if TYPE_CHECKING:
    from training.loop.state import RunState


class WandbWriter:
    """Writes to a project of Weights & Biases."""

    def __init__(self, project: str) -> None:
        require_wandb()
        self.project = project
        self._run: Any = None

    def start(self, state: RunState) -> None:
        """See `MetricsWriter.start`."""
        import wandb

        # The id is the run's, so that a resumed run stays one curve.
        self._run = wandb.init(
            project=self.project,
            name=state.config.run.name,
            id=f"{state.config.run.name}-{state.config.seed}",
            resume="allow",
            config=state.config.model_dump(mode="json"),
        )

    def write(self, step: int, scalars: Scalars) -> None:
        """See `MetricsWriter.write`."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """See `MetricsWriter.close`."""
        if self._run is not None:
            self._run.finish()


def require_wandb() -> None:
    """Check that the package is there.

    Raises:
        RepriseError: it is missing.
    """
    if importlib.util.find_spec("wandb") is None:
        raise RepriseError(
            "log.wandb is set, but the package is missing: pip install wandb, or set it to null"
        )
