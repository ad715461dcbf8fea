"""The folder that a run writes to. The same name and output find it again.

    <output>/<name>/
      config.yaml                     as resolved when the run was started last
      checkpoints/step-00001000/      all that is needed to resume after 1000 steps
        complete.json                 written last: without it, the checkpoint does not count
        .metadata, __0_0.distcp, ...  torch.distributed.checkpoint: weights, optimizer, EMA, callbacks
      checkpoints/step-00002000.partial/   being written, or left by a crash: never read
      model/                          after the last step: a diffusers pipeline folder for `reprise generate`
      stopped.json                    why the run stopped, where a restart would not help
      tensorboard/, samples/, ...     files of callbacks, one folder for each

On S3 there is no `.partial`: objects cannot be renamed at once, so only `complete.json` decides.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from reprise.storage import Storage
from training.config import CheckpointConfig, RunConfig, TrainConfig

COMPLETE_MARKER = "complete.json"
_STEP_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, local or on S3."""

    root: Storage

    @classmethod
    def from_config(cls, run: RunConfig) -> RunFolder:
        """Get the folder of `run.output` and `run.name`."""
        return cls(Storage.from_uri(run.output).get_subfolder(run.name))

    def get_address(self, rel: str) -> str:
        """Get the address of a path below the run's folder."""
        return self.root.join_path(rel)

    def get_checkpoint_path(self, step: int) -> str:
        """Get the relative path of a checkpoint."""
        return f"checkpoints/step-{step:08d}"

    def list_complete_steps(self) -> list[int]:
        """List the steps of complete checkpoints, ascending."""
        found = []
        for name in self.root.list_folders("checkpoints"):
            match = _STEP_NAME.fullmatch(name)
            if match and self.root.exists(f"checkpoints/{name}/{COMPLETE_MARKER}"):
                found.append(int(match[1]))
        return sorted(found)

    def read_facts(self, step: int) -> dict[str, Any]:
        """Read `complete.json` of a checkpoint."""
        facts: dict[str, Any] = json.loads(
            self.root.read_bytes(f"{self.get_checkpoint_path(step)}/{COMPLETE_MARKER}")
        )
        return facts

    def clear_partial(self) -> None:
        """Remove checkpoints that a crash left incomplete."""
        complete = set(self.list_complete_steps())
        for name in self.root.list_folders("checkpoints"):
            match = _STEP_NAME.match(name)
            if match and (name.endswith(".partial") or int(match[1]) not in complete):
                self.root.delete_tree(f"checkpoints/{name}")

    def remove_old_checkpoints(self, config: CheckpointConfig) -> None:
        """Remove all checkpoints but the newest `keep` and those of every `keep_every` steps."""
        for step in self.list_complete_steps()[: -config.keep]:
            if config.keep_every is None or step % config.keep_every:
                # The marker goes first, so that a removal that is interrupted leaves no valid checkpoint.
                self.root.delete_file(f"{self.get_checkpoint_path(step)}/{COMPLETE_MARKER}")
                self.root.delete_tree(self.get_checkpoint_path(step))

    def list_results(self) -> dict[str, str]:
        """List the results that exist: what it is -> address of the file or folder."""
        results = {"curves": "curves.png", "samples": "samples", "model": "model"}
        return {name: self.get_address(rel) for name, rel in results.items() if self.root.exists(rel)}

    def count_done_steps(self) -> int:
        """Return the step of the last complete checkpoint; 0: there is none."""
        return max(self.list_complete_steps(), default=0)

    def describe_kept_steps(self, config: TrainConfig) -> str:
        """Say what of a stopped run is kept, and what the same command does next."""
        saved = self.count_done_steps()
        if saved:
            return f"step {saved} of {config.steps} is saved; the same command resumes there"
        return (
            "no checkpoint was saved yet, so the same command starts from the beginning "
            f"(checkpoint.every={config.checkpoint.every} sets how often one is saved)"
        )
