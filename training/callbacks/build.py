"""Build the callbacks of a config."""

from __future__ import annotations

from training.callbacks.console import ConsoleWriter
from training.callbacks.curves import Curves
from training.callbacks.log import MetricsLog, MetricsWriter
from training.callbacks.metrics_file import MetricsFile
from training.callbacks.tensorboard import TensorBoardWriter
from training.callbacks.validation import Validation
from training.callbacks.wandb import WandbWriter
from training.config import TrainConfig
from training.gradient_conflict.callback import build_conflict_callbacks
from training.loop.callback import Callback


def build_callbacks(config: TrainConfig, *, console: bool = False) -> list[Callback]:
    """Build the callbacks of a config; the log comes first, since the others record to it.

    Args:
        config: of the run.
        console: print a line every `log.every` steps. `reprise train` shows its own, from `metrics.jsonl`.

    Raises:
        RepriseError: a package that the config needs is missing.
    """
    writers: list[MetricsWriter] = [MetricsFile()]
    if config.log.tensorboard:
        writers.append(TensorBoardWriter())
    if config.log.wandb:
        writers.append(WandbWriter(config.log.wandb))
    if console:
        writers.append(ConsoleWriter())
    log = MetricsLog(writers, config.log.every)
    callbacks: list[Callback] = [log]
    if config.validation.every:
        callbacks.append(Validation(log))
    return [*callbacks, *build_conflict_callbacks(config.conflict, log), Curves()]
