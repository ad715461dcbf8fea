"""Hugging Face datasets: Parquet with videos and pictures inside, and a card that says what it is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.export.needs import ReferenceNeeds, TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.targets.huggingface_card import write_card
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

_MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_MASK = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
_SUBJECT = pa.struct(
    [
        ("subject_id", pa.string()),
        ("category", pa.string()),
        ("phrase", pa.string()),
        ("frame_index", pa.int64()),
        ("box", pa.list_(pa.float64())),
        ("mask", _MASK),
    ]
)
_REFERENCE = pa.struct(
    [("subject", pa.int32()), ("variant", pa.string()), ("reference_id", pa.string()), ("image", _MEDIA)]
)
_FIELDS = [
    pa.field("clip_id", pa.string()),
    pa.field("video_id", pa.string()),
    pa.field("video", _MEDIA),
    pa.field("caption", pa.string()),
    pa.field("license", pa.string()),
    pa.field("extra", pa.string()),
    pa.field("fps", pa.float64()),
    pa.field("frames", pa.int64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("subjects", pa.list_(_SUBJECT)),
    pa.field("references", pa.list_(_REFERENCE)),
]


def _describe_features() -> bytes:
    """What `datasets` reads as the types of the columns: videos and pictures are decoded."""

    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    def sequence(feature: dict[str, Any]) -> dict[str, Any]:
        return {"feature": feature, "_type": "List"}

    features = {
        "clip_id": value("string"),
        "video_id": value("string"),
        "video": {"_type": "Video"},
        "caption": value("string"),
        "license": value("string"),
        "extra": value("string"),
        "fps": value("float64"),
        "frames": value("int64"),
        "width": value("int32"),
        "height": value("int32"),
        "subjects": sequence(
            {
                "subject_id": value("string"),
                "category": value("string"),
                "phrase": value("string"),
                "frame_index": value("int64"),
                "box": sequence(value("float64")),
                "mask": {"size": sequence(value("int32")), "counts": value("string")},
            }
        ),
        "references": sequence(
            {
                "subject": value("int32"),
                "variant": value("string"),
                "reference_id": value("string"),
                "image": {"_type": "Image"},
            }
        ),
    }
    return json.dumps({"info": {"features": features}}).encode()


SCHEMA = pa.schema(_FIELDS, metadata={b"huggingface": _describe_features()})


class HuggingFaceTarget(ExportTarget):
    """A unit of the export is a Parquet file below `data/`; `README.md` is the card."""

    name = "huggingface"
    title = "Hugging Face datasets"
    needs = TargetNeeds(references=ReferenceNeeds(background="as-is"), caption=False, sharded=True)
    holds = TargetHolds(references="any number", masks=True, boxes=True, licenses=True)

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write one Parquet file, a row group per clip, and yield a record per clip."""
        path = f"data/{writer.split}-{writer.number:05d}.parquet"
        written = []
        with writer.open_file(path) as stream, pq.ParquetWriter(stream, SCHEMA, compression="zstd") as file:
            for sample in samples:
                file.write_table(pa.Table.from_pylist([build_record(sample)], schema=SCHEMA))
                written.append(
                    {
                        "license": sample.row["license"],
                        "bytes": sample.video.path.stat().st_size,
                        "categories": [subject["category"] for subject in sample.subjects],
                        "variants": [picture.variant for picture in sample.pictures],
                    }
                )
        yield from written

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write the card."""
        write_card(export)
        uri = export.writer.output.uri
        return [f'datasets.load_dataset("{uri}")', f"hf upload USER/NAME {uri} --repo-type dataset"]

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the columns of every file, and that its videos and pictures are there."""
        for split in SPLITS:
            for path in output.list_paths("data", ".parquet"):
                if path.startswith(f"data/{split}-"):
                    yield from _check_file(output, path)
        if not output.is_file("README.md"):
            yield "README.md: no card"


def build_record(sample: Sample) -> dict[str, Any]:
    """Build the row of a clip."""
    row = sample.row
    subject_fields = ("subject_id", "category", "phrase", "frame_index", "box", "mask")
    return {
        "clip_id": row["clip_id"],
        "video_id": row["video_id"],
        "video": {"bytes": sample.video.path.read_bytes(), "path": f"{sample.key}.mp4"},
        "caption": sample.caption or None,
        "license": row["license"],
        "extra": row["extra"],
        "fps": sample.video.fps,
        "frames": sample.video.frames,
        "width": sample.video.width,
        "height": sample.video.height,
        "subjects": [{name: subject[name] for name in subject_fields} for subject in sample.subjects],
        "references": [
            {
                "subject": picture.subject,
                "variant": picture.variant,
                "reference_id": picture.reference_id,
                "image": {"bytes": picture.data, "path": f"{picture.reference_id}.{picture.extension}"},
            }
            for picture in sample.pictures
        ],
    }


def _check_file(output: Storage, path: str) -> Iterator[str]:
    table = pq.read_table(io.BytesIO(output.read_bytes(path)))
    if not table.schema.equals(SCHEMA):
        yield f"{path}: its columns are not those of an export"
        return
    for row in table.to_pylist():
        if not row["video"] or not row["video"]["bytes"]:
            yield f"{path}, {row['clip_id']}: no video"
        for reference in row["references"]:
            if not reference["image"] or not reference["image"]["bytes"]:
                yield f"{path}, {row['clip_id']}: {reference['reference_id']} has no picture"
