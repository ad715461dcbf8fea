"""ai-toolkit: folders of clips, captions and references with the same stems, and a YAML file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from curation.export.sample import Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.targets.grouped_folders import (
    check_groups,
    list_groups,
    name_group,
    write_grouped_samples,
)
from curation.export.targets.h3_musubi import H3_NEEDS
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

_FPS = 24


class AiToolkitTarget(ExportTarget):
    """Clips are grouped by their number of references: the items of a batch must have equally many."""

    name = "ai-toolkit"
    title = "ai-toolkit (MiniMax-H3 Ref2VA)"
    needs = H3_NEEDS
    holds = TargetHolds(references="1 to 9")

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write the folders of `grouped_folders`."""
        yield from write_grouped_samples(samples, writer)

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.yaml`, the `datasets` of a config, and the same for validation."""
        commands = []
        for split in export.splits:
            datasets = []
            for count, frames in list_groups(export, split).items():
                group = export.writer.output.join_path(name_group(split, count))
                dataset: dict[str, Any] = {
                    "folder_path": f"{group}/videos",
                    "control_path": [f"{group}/ref{number}" for number in range(1, count + 1)],
                    "caption_ext": "txt",
                    "num_frames": frames,
                    "fps": _FPS,
                }
                datasets.append(dataset)
            text = yaml.safe_dump({"datasets": datasets}, sort_keys=False)
            export.writer.write_text(f"{split}.yaml", text)
            commands.append(f"copy `datasets` of {split}.yaml into the config; model.arch: minimax_h3_ref2va")
        return commands

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the folders of `grouped_folders`."""
        yield from check_groups(output, self.needs)
