"""Megatron-Energon: WebDataset shards, and the file that tells it how to read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from curation.export.sample import SPLITS
from curation.export.target import FinishedExport, TargetHolds
from curation.export.targets.webdataset import WebDatasetTarget
from reprise.storage import Storage


class EnergonTarget(WebDatasetTarget):
    """The shards of `webdataset`; `energon prepare` indexes them and writes `.nv-meta`."""

    name = "energon"
    title = "Megatron-Energon"
    holds = TargetHolds(references="any number", boxes=True, licenses=True)

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write the lists of shards; the command for `energon prepare` names the splits."""
        super().write_index(export)
        base = export.writer.output.uri
        parts = []
        for split, part in zip(SPLITS, ("train", "val"), strict=True):
            if export.counts[split]:
                parts.append(f"--split-parts '{part}:{split}-.*\\.tar'")
        return [f"energon prepare {base} --non-interactive {' '.join(parts)} --sample-type CrudeWebdataset"]

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the shards, and that no sample has a part with a name that would be taken for metadata."""
        yield from super().check_export(output)
