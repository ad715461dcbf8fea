"""OpenS2V-5M's JSON: per clip its crop, its scores, the boxes and the masks of its subjects.

The format names subjects by class and keeps their masks by frame. It has no place for reference pictures: its
users cut them out with the masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from curation.export.checks import check_video
from curation.export.lists import write_json_object
from curation.export.needs import ReferenceNeeds, TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.json_files import read_json_object
from reprise.storage import Storage

_FACE_GROUP = "human"


class OpenS2VTarget(ExportTarget):
    """Clips with the boxes and masks of their subjects."""

    name = "opens2v"
    title = "OpenS2V JSON"
    needs = TargetNeeds(references=ReferenceNeeds(maximum=0))
    holds = TargetHolds(references="none, but masks to cut them out", masks=True, boxes=True, licenses=True)

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `videos/KEY.mp4` and yield entries of the JSON."""
        for sample in samples:
            path = f"videos/{sample.key}.mp4"
            writer.put_video(path, sample.video)
            yield {"key": sample.key, "value": describe_clip(sample, path)}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.json`, and `validation.json` where clips were kept apart."""
        written = []
        for split in export.splits:
            pairs = ((record["key"], record["value"]) for record in export.read_records(split))
            write_json_object(export.writer, f"{split}.json", pairs)
            written.append(f"{split}.json: videos below {export.writer.output.uri}")
        return written

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check that each entry names a video that can be decoded, and each mask a class and a box."""
        for split in SPLITS:
            for key, entry in (read_json_object(output, f"{split}.json") or {}).items():
                yield from check_video(output, entry["metadata"]["path"], self.needs.video)
                annotation = entry["annotation"]
                classes = annotation["mask_map"]
                boxes = annotation["ann_frame_data"]["annotations"]
                if sorted(classes.values()) != sorted(box["class_name"] for box in boxes):
                    yield f"{key}: its boxes and its masks are of other classes"
                for frame, masks in annotation["mask_annotation"].items():
                    for number in masks:
                        if number not in classes:
                            yield f"{key}, frame {frame}: mask {number} has no class"


def describe_clip(sample: Sample, path: str) -> dict[str, Any]:
    """Describe a clip in the fields of OpenS2V; frames count from the clip's first one."""
    row, subjects = sample.row, sample.subjects
    found = [subject for subject in subjects if subject["mask"] is not None]
    words: dict[str, list[str]] = {"background": [], "subject": [], "object": []}
    for subject in subjects:
        place = "subject" if subject["group"] in (_FACE_GROUP, "animal") else "object"
        words[place].append(subject["phrase"])
    first = row["start_frame"] or 0
    index = (found[0]["frame_index"] - first) if found else 0
    return {
        "metadata": {
            "path": path,
            "cut": [0, sample.video.frames],
            "crop": [0, sample.video.width, 0, sample.video.height],
            "face_cut": None,
            "fps": sample.video.fps,
            "num_frames": sample.video.frames,
            "resolution": {"height": sample.video.height, "width": sample.video.width},
            "aesthetic": None,
            "motion": row["motion"],
            "cap": [sample.caption],
            "license": row["license"],
        },
        "word_tags": words,
        "annotation": {
            "ann_frame_data": {
                "ann_frame_idx": str(index),
                "annotations": [
                    {
                        "class_name": subject["phrase"],
                        "bbox": subject["box"],
                        "gme_score": subject["scores"]["clip_category"],
                        "aes_score": None,
                    }
                    for subject in found
                ],
            },
            "mask_map": {str(number): subject["phrase"] for number, subject in enumerate(found, start=1)},
            "mask_annotation": _list_masks(found, first),
        },
    }


def _list_masks(subjects: Sequence[dict[str, Any]], first: int) -> dict[str, dict[str, Any]]:
    """Frame -> number of the subject -> its mask there: the best one, and those of its track."""
    frames: dict[int, dict[str, Any]] = {}
    for number, subject in enumerate(subjects, start=1):
        places = [
            (point["index"], point["mask"], point["presence"])
            for point in subject["track"] or ()
            if point["mask"] is not None
        ]
        places.append((subject["frame_index"], subject["mask"], subject["scores"]["segment"]))
        for index, mask, score in places:
            frames.setdefault(index - first, {})[str(number)] = {**mask, "score": score}
    return {str(index): frames[index] for index in sorted(frames)}
