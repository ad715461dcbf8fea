"""Megatron-Energon: WebDataset shards, and the command that indexes them."""

from __future__ import annotations

from collections.abc import Sequence

from curation.export.sample import TRAIN, VALIDATION
from curation.export.target import FinishedExport, TargetHolds
from curation.export.targets.webdataset import WebDatasetTarget

_NAMES = {TRAIN: "train", VALIDATION: "val"}  # of splits, in Energon


class EnergonTarget(WebDatasetTarget):
    """The shards of `webdataset`; `energon prepare` indexes them and writes `.nv-meta`."""

    name = "energon"
    title = "Megatron-Energon"
    holds = TargetHolds(references="any number", boxes=True, licenses=True)

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write the lists of shards; the command for `energon prepare` names the splits."""
        super().write_index(export)
        base = export.writer.output.uri
        parts = " ".join(f"--split-parts '{_NAMES[split]}:{split}-.*\\.tar'" for split in export.splits)
        return [f"energon prepare {base} --non-interactive {parts} --sample-type CrudeWebdataset"]
