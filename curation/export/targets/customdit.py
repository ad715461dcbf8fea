"""CustoMDiT: a CSV with one subject a row, and per clip a folder with its annotations and a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from curation.export.checks import check_references, check_video, read_csv
from curation.export.lists import write_csv
from curation.export.needs import ReferenceNeeds, TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.json_files import read_json_object
from reprise.storage import Storage

_COLUMNS = ("videoid", "object_index", "personalized_caption", "root_dir")


class CustoMDiTTarget(ExportTarget):
    """One subject a sample; its reference is cut out of `original.png` by the mask."""

    name = "customdit"
    title = "CustoMDiT"
    needs = TargetNeeds(references=ReferenceNeeds(maximum=0), best_frame=True)
    holds = TargetHolds(references="1, as a mask", masks=True, boxes=True)

    def find_obstacle(self, row: dict[str, Any], references: int) -> str | None:
        """Refuse a clip without a subject: it would give no row."""
        kept = [subject for subject in row["subjects"] or () if (subject["verdict"] or {}).get("kept")]
        return None if kept else "no kept subject"

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `SPLIT/KEY/KEY.mp4`, `KEY.json` and `original.png`, and yield rows of the CSV."""
        for sample in samples:
            folder = f"{sample.split}/{sample.key}"
            subjects = [subject for subject in sample.subjects if subject["mask"] is not None]
            writer.put_video(f"{folder}/{sample.key}.mp4", sample.video)
            index = subjects[0]["frame_index"] - (sample.row["start_frame"] or 0)
            writer.write_bytes(f"{folder}/original.png", sample.best_frame or b"")
            same = [subject for subject in subjects if subject["frame_index"] == subjects[0]["frame_index"]]
            writer.write_json(
                f"{folder}/{sample.key}.json",
                {
                    "video_path": f"{folder}/{sample.key}.mp4",
                    "original_caption": sample.row["caption"],
                    "florence_caption": "",
                    "frame_index": index,
                    "annotations": [_describe_subject(subject) for subject in same],
                },
            )
            yield {
                "rows": [
                    {
                        "videoid": sample.key,
                        "object_index": number,
                        "personalized_caption": sample.caption,
                        "root_dir": sample.split,
                    }
                    for number in range(len(same))
                ]
            }

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.csv`, and `validation.csv` where clips were kept apart."""
        for split in export.splits:
            rows = (row for record in export.read_records(split) for row in record["rows"])
            write_csv(export.writer, f"{split}.csv", _COLUMNS, rows)
        return [f"train.csv: root_dir is below {export.writer.output.uri}"]

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check that each row has its video, picture and mask; the loader would train on grey instead."""
        for split in SPLITS:
            for line in read_csv(output, f"{split}.csv", _COLUMNS):
                folder = f"{line['root_dir']}/{line['videoid']}"
                entry = read_json_object(output, f"{folder}/{line['videoid']}.json")
                if entry is None:
                    yield f"{folder}: no {line['videoid']}.json"
                    continue
                yield from check_video(output, entry["video_path"], self.needs.video)
                yield from check_references(output, folder, [f"{folder}/original.png"], ReferenceNeeds())
                if int(line["object_index"]) >= len(entry["annotations"]):
                    yield f"{folder}: no annotation {line['object_index']}"


def _describe_subject(subject: dict[str, Any]) -> dict[str, Any]:
    return {
        "class_name": subject["phrase"],
        "bbox": subject["box"],
        "segmentation": subject["mask"],
        "score": subject["scores"]["grounding"],
        "caption": subject["phrase"],
    }
