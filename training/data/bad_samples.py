"""The samples of a run that are damaged on disk and skipped: counted, logged, and kept in checkpoints."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from reprise.errors import RepriseError
from training.config import DataConfig

_log = logging.getLogger(__name__)


class BadSamples:
    """The damaged samples that this worker knows; safe to use from several threads.

    A sample that a checkpoint names is skipped for the rest of the run, even if its file is mended. So the
    order of samples does not depend on when a run was resumed.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}  # "<shard>/<sample id>" -> why

    def __contains__(self, name: str) -> bool:
        return name in self._reasons

    def add_sample(self, name: str, reason: Exception) -> None:
        """Add a damaged sample.

        Raises:
            RepriseError: `data.bad_samples` is stop, or there are more than `data.max_bad_samples`.
        """
        if self.config.bad_samples == "stop":
            raise RepriseError(f"{reason}; or go on without it: data.bad_samples=skip") from reason
        with self._lock:
            if name not in self._reasons:
                _log.warning("sample %s is skipped: %s", name, reason)
            self._reasons[name] = str(reason)
        self._check_limit()

    def merge_reasons(self, reasons: Mapping[str, str]) -> None:
        """Add the samples that another worker or a checkpoint knows.

        Raises:
            RepriseError: there are more than `data.max_bad_samples`.
        """
        with self._lock:
            self._reasons = {**reasons, **self._reasons}
        self._check_limit()

    def get_reasons(self) -> dict[str, str]:
        """Return why each sample is skipped, in the order of names."""
        with self._lock:
            return dict(sorted(self._reasons.items()))

    def _check_limit(self) -> None:
        found = self.get_reasons()
        if len(found) > self.config.max_bad_samples:
            raise RepriseError(
                f"{len(found)} samples are damaged, more than data.max_bad_samples="
                f"{self.config.max_bad_samples}, such as {next(iter(found.values()))}"
            )
