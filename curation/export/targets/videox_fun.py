"""Wan VACE trained by VideoX-Fun: one JSON list with absolute paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from curation.export.checks import check_references, check_rgb, check_video, read_json_list
from curation.export.lists import write_json_list
from curation.export.needs import ReferenceNeeds, TargetNeeds, VideoNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

_KEYS = ("file_path", "control_file_path", "object_file_path", "text", "type", "width", "height")


class VideoXFunTarget(ExportTarget):
    """Up to four pictures, RGB without transparency. The loader silently replaces bad rows by others."""

    name = "videox-fun"
    title = "Wan VACE, VideoX-Fun"
    needs = TargetNeeds(
        video=VideoNeeds(steady=True), references=ReferenceNeeds(minimum=1, maximum=4), local=True
    )
    holds = TargetHolds(references="up to 4")

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `videos/KEY.mp4` and `references/KEY/1.png`, ..., and yield the entries of the list."""
        for sample in samples:
            video, pictures = writer.put_sample(
                sample, f"videos/{sample.key}.mp4", f"references/{sample.key}/{{number}}.{{extension}}"
            )
            yield {
                "entry": {
                    "file_path": writer.output.join_path(video),
                    # The key is required; a video without a control signal has null.
                    "control_file_path": None,
                    "object_file_path": [writer.output.join_path(path) for path in pictures],
                    "text": sample.caption,
                    "type": "video",
                    "width": sample.video.width,
                    "height": sample.video.height,
                },
            }

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.json`, and `validation.json` if the export has a validation split."""
        commands = []
        for split in export.splits:
            entries = (record["entry"] for record in export.read_records(split))
            write_json_list(export.writer, f"{split}.json", entries)
            path = export.writer.output.join_path(f"{split}.json")
            commands.append(f'{split}: --train_data_dir="" --train_data_meta="{path}"')
        return commands

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the rules of the loader: keys, absolute paths, pictures in RGB, one to four of them."""
        for split in SPLITS:
            for entry in read_json_list(output, f"{split}.json"):
                where = entry.get("file_path")
                missing = [key for key in _KEYS if key not in entry]
                if missing:
                    yield f"{where}: no key {', '.join(missing)}"
                    continue
                pictures = entry["object_file_path"]
                if not all(isinstance(path, str) and Path(path).is_absolute() for path in (where, *pictures)):
                    yield f"{where}: paths are not absolute"
                    continue
                yield from check_video(output, where, self.needs.video)
                problems = list(check_references(output, where, pictures, self.needs.references))
                yield from problems
                if not problems:
                    for path in pictures:
                        yield from check_rgb(output, path)
