"""`tensorboard/`: the numbers of a run for `tensorboard --logdir`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.callbacks.log import Scalars
from training.callbacks.metrics_file import REMOTE_EVERY_S

if TYPE_CHECKING:
    from reprise.storage import Storage
    from training.loop.state import RunState

TENSORBOARD_FOLDER = "tensorboard"


class TensorBoardWriter:
    """Write for TensorBoard. For S3 the files are written locally and uploaded."""

    def __init__(self) -> None:
        self._writer: Any = None
        self._folder: Storage | None = None
        self._local: tempfile.TemporaryDirectory[str] | None = None
        self._last_upload = 0.0

    def start(self, state: RunState) -> None:
        """See `MetricsWriter.start`."""
        from torch.utils.tensorboard import SummaryWriter

        self._folder = state.folder.root
        if self._folder.is_remote:  # written locally, uploaded every few seconds
            self._local = tempfile.TemporaryDirectory(prefix="reprise-tensorboard-")
        path = self._local.name if self._local else self._folder.join_path(TENSORBOARD_FOLDER)
        # TensorBoard hides what an interrupted run wrote of later steps.
        self._writer = SummaryWriter(path, purge_step=state.step + 1 if state.step else None, flush_secs=10)

    def write(self, step: int, scalars: Scalars) -> None:
        """See `MetricsWriter.write`."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        if self._local and time.monotonic() - self._last_upload > REMOTE_EVERY_S:
            self._upload_files()

    def close(self) -> None:
        """See `MetricsWriter.close`."""
        if self._writer is not None:
            self._writer.close()
        if self._local:
            self._upload_files()
            self._local.cleanup()

    def _upload_files(self) -> None:
        self._writer.flush()
        self._last_upload = time.monotonic()
        for path in Path(self._local.name).iterdir() if self._local and self._folder else ():
            self._folder.write_bytes(f"{TENSORBOARD_FOLDER}/{path.name}", path.read_bytes())  # type: ignore[union-attr]
