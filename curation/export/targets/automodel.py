"""NeMo Automodel: a folder of videos, each with a JSON file that holds its caption; no references."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from curation.export.checks import check_video
from curation.export.needs import ReferenceNeeds, TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage


class AutomodelTarget(ExportTarget):
    """Videos and captions alone. A video without a caption would be trained on its file name."""

    name = "automodel"
    title = "NeMo Automodel"
    needs = TargetNeeds(references=ReferenceNeeds(maximum=0))
    holds = TargetHolds(references="none", licenses=True)

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `SPLIT/KEY.mp4` and `SPLIT/KEY.json`."""
        for sample in samples:
            writer.put_video(f"{sample.split}/{sample.key}.mp4", sample.video)
            writer.write_json(
                f"{sample.split}/{sample.key}.json",
                {"caption": sample.caption, "license": sample.row["license"]},
            )
            yield {"clip_id": sample.row["clip_id"]}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write nothing: the tool lists the folder."""
        return [
            f"preprocessing_multiprocess.py video --video_dir {export.writer.output.join_path(split)} "
            "--caption_format sidecar"
            for split in export.splits
        ]

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check that every video can be decoded and has a caption in its JSON file."""
        for split in SPLITS:
            for video in output.list_paths(split, ".mp4"):
                yield from check_video(output, video, self.needs.video)
                beside = video.removesuffix(".mp4") + ".json"
                text = output.read_bytes(beside) if output.is_file(beside) else b"{}"
                if not json.loads(text).get("caption"):
                    yield f"{video}: no caption in {beside}; its file name would be its caption"
