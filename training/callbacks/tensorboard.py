"""`tensorboard/`: the numbers of a run for `tensorboard --logdir`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.callbacks.log import Scalars
from training.callbacks.metrics_file import REMOTE_EVERY_S

if TYPE_CHECKING:
    from training.loop.state import State
    from training.storage import Folder

FOLDER = "tensorboard"


class TensorBoard:
    def __init__(self) -> None:
        self._writer: Any = None
        self._folder: Folder | None = None
        self._local: tempfile.TemporaryDirectory[str] | None = None
        self._put = 0.0

    def start(self, state: State) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = state.folder.root
        if self._folder.remote:  # written here, and put there now and then
            self._local = tempfile.TemporaryDirectory(prefix="reprise-tensorboard-")
        path = self._local.name if self._local else self._folder.join(FOLDER)
        # What an interrupted run wrote of later steps is hidden from the page.
        self._writer = SummaryWriter(path, purge_step=state.step + 1 if state.step else None, flush_secs=10)

    def write(self, step: int, scalars: Scalars) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        if self._local and time.monotonic() - self._put > REMOTE_EVERY_S:
            self._upload()

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._local:
            self._upload()
            self._local.cleanup()

    def _upload(self) -> None:
        self._writer.flush()
        self._put = time.monotonic()
        for path in Path(self._local.name).iterdir() if self._local and self._folder else ():
            self._folder.write(f"{FOLDER}/{path.name}", path.read_bytes())  # type: ignore[union-attr]
