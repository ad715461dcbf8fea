"""SimpleTuner: datasets of clips and of references, joined in `multidatabackend.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from curation.export.checks import read_json_list
from curation.export.needs import ReferenceNeeds, TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.targets.grouped_folders import (
    check_groups,
    list_groups,
    name_group,
    write_grouped_samples,
)
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

_BACKEND_FILE = "multidatabackend.json"


class SimpleTunerTarget(ExportTarget):
    """Each reference has a conditioning dataset of its own, so clips are grouped by their number of them."""

    name = "simpletuner"
    title = "SimpleTuner"
    needs = TargetNeeds(references=ReferenceNeeds(minimum=1), local=True)
    holds = TargetHolds(references="any number")

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write the folders of `grouped_folders`."""
        yield from write_grouped_samples(samples, writer)

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `multidatabackend.json`."""
        backends: list[dict[str, Any]] = []
        for split in export.splits:
            for count, frames in list_groups(export, split).items():
                backends += _describe_group(export.writer.output, split, count, frames)
        backends.append(
            {
                "id": "text-embeds",
                "dataset_type": "text_embeds",
                "type": "local",
                "default": True,
                "cache_dir": export.writer.output.join_path("cache/text"),
            }
        )
        export.writer.write_text(_BACKEND_FILE, json.dumps(backends, indent=2) + "\n")
        return [f"--data_backend_config {export.writer.output.join_path(_BACKEND_FILE)}"]

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the folders, and that the backends name each other and folders that exist."""
        yield from check_groups(output, self.needs)
        backends = read_json_list(output, _BACKEND_FILE)
        names = {backend.get("id") for backend in backends}
        if len(names) != len(backends):
            yield f"{_BACKEND_FILE}: two backends have one id"
        for backend in backends:
            for other in (*backend.get("conditioning_data", ()), backend.get("source_dataset_id")):
                if other is not None and other not in names:
                    yield f"{_BACKEND_FILE}: {backend.get('id')} names {other}, which is not there"


def _describe_group(output: Storage, split: str, count: int, frames: int) -> Iterator[dict[str, Any]]:
    """Yield the backend of the clips with so many references, and those of their references."""
    group = name_group(split, count)
    references = [f"{group}-ref{number}" for number in range(1, count + 1)]
    common = {"type": "local", "crop": False, "resolution": 480, "resolution_type": "pixel"}
    yield {
        "id": group,
        "dataset_type": "video" if split == SPLITS[0] else "eval",
        "instance_data_dir": output.join_path(f"{group}/videos"),
        "caption_strategy": "textfile",
        "cache_dir_vae": output.join_path(f"cache/{group}"),
        "conditioning_data": references,
        "video": {"num_frames": frames, "min_frames": frames},
        **common,
    }
    for number, name in enumerate(references, start=1):
        yield {
            "id": name,
            "dataset_type": "conditioning",
            "conditioning_type": "reference_strict",
            "source_dataset_id": group,
            "instance_data_dir": output.join_path(f"{group}/ref{number}"),
            "caption_strategy": None,
            "cache_dir_vae": output.join_path(f"cache/{name}"),
            **common,
        }
