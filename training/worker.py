"""Run one worker of a training run: build the state, run the loop, export the model.

`trainer.py` starts workers on Ray. Without Ray, call `train_model` in every process of `torchrun`, or in one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from training.config import TrainConfig
from training.export import export_run
from training.loop.callback import Callback
from training.loop.loop import run_loop
from training.loop.state import RunState
from training.loop.world import World
from training.setup import build_state


def train_model(
    config: TrainConfig,
    world: World,
    callbacks: Sequence[Callback] = (),
    *,
    is_draining: Callable[[], bool] | None = None,
) -> RunState:
    """Train to the end of `config.steps`, from the newest complete checkpoint if there is one.

    Collective: every worker of `world` calls it with the same arguments.

    Args:
        config: of the run.
        world: all workers, and the place of this one among them.
        callbacks: called in this order at each hook.
        is_draining: whether machines are about to be taken away. All workers ask together, every few
            seconds; on True a checkpoint is saved and training goes on. After SIGTERM
            (`preemption.install_handler`) a checkpoint is saved and training ends.

    Raises:
        RepriseError: the config or the data cannot be trained, or a loss is not finite.
        Preempted: after SIGTERM, with everything saved.
    """
    state = build_state(config, world)
    run_loop(state, callbacks, is_draining=is_draining, export=export_run)
    return state
