"""Where a run writes. The same name and output find it again.

    <output>/<name>/
      config.yaml                     as resolved when the run was started last
      checkpoints/step-00001000/      all that is needed to go on after 1000 steps
        complete.json                 written last: without it, the checkpoint does not count
        .metadata, __0_0.distcp, ...  torch.distributed.checkpoint: weights, optimizer, EMA, callbacks
      checkpoints/step-00002000.partial/   being written, or left by a crash: never read
      model/                          after the last step: a diffusers pipeline folder for `reprise generate`
      stopped.json                    why the run stopped, where a restart would not help
      tensorboard/, samples/, ...     whatever callbacks write, each in a folder of its own

On S3 there is no `.partial`: objects cannot be renamed at once, so `complete.json` alone decides.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from training.config import CheckpointConfig, RunConfig
from training.storage import Folder

COMPLETE = "complete.json"
_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class RunFolder:
    root: Folder

    @classmethod
    def of(cls, run: RunConfig) -> RunFolder:
        return cls(Folder.at(f"{run.output.rstrip('/')}/{run.name}"))

    def join(self, rel: str) -> str:
        """An address below the run's folder."""
        return self.root.join(rel)

    def checkpoint(self, step: int) -> str:
        """Relative path of a checkpoint."""
        return f"checkpoints/step-{step:08d}"

    def complete(self) -> list[int]:
        """Steps of the checkpoints that are complete, ascending."""
        found = []
        for name in self.root.folders("checkpoints"):
            match = _STEP.fullmatch(name)
            if match and self.root.exists(f"checkpoints/{name}/{COMPLETE}"):
                found.append(int(match[1]))
        return sorted(found)

    def facts(self, step: int) -> dict[str, Any]:
        """What `complete.json` of a checkpoint says."""
        facts: dict[str, Any] = json.loads(self.root.read(f"{self.checkpoint(step)}/{COMPLETE}"))
        return facts

    def clear_partial(self) -> None:
        """Remove what crashes left half written."""
        complete = set(self.complete())
        for name in self.root.folders("checkpoints"):
            match = _STEP.match(name)
            if match and (name.endswith(".partial") or int(match[1]) not in complete):
                self.root.delete_folder(f"checkpoints/{name}")

    def rotate(self, config: CheckpointConfig) -> None:
        """Remove checkpoints beyond the newest `keep`, but those of every `keep_every` steps."""
        for step in self.complete()[: -config.keep]:
            if config.keep_every is None or step % config.keep_every:
                # The marker goes first: what is left of an interrupted removal does not count.
                self.root.delete(f"{self.checkpoint(step)}/{COMPLETE}")
                self.root.delete_folder(self.checkpoint(step))
