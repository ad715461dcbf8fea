"""WebDataset: tar files in which the parts of a sample are adjacent."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from curation.export.checks import read_tar_samples
from curation.export.needs import ReferenceNeeds, TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

_BLOCK_BYTES = 1 << 20  # written at once


class WebDatasetTarget(ExportTarget):
    """A sample is `KEY.mp4`, `KEY.ref1.jpg`, ... and `KEY.json`; a unit of the export is a tar file."""

    name = "webdataset"
    title = "WebDataset"
    needs = TargetNeeds(references=ReferenceNeeds(format="jpeg"), caption=False, sharded=True)
    holds = TargetHolds(references="any number", boxes=True, licenses=True)

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write one tar file and yield a record per sample."""
        path = name_shard(writer.split, writer.number)
        with (
            writer.open_file(path) as stream,
            tarfile.open(
                fileobj=stream,
                mode="w|",
                bufsize=_BLOCK_BYTES,
                format=tarfile.USTAR_FORMAT,
            ) as archive,
        ):
            archive.copybufsize = _BLOCK_BYTES  # type: ignore[attr-defined]
            for sample in samples:
                key = sample.key
                info = _build_tar_info(f"{key}.mp4", sample.video.path.stat().st_size)
                with sample.video.path.open("rb") as video:
                    archive.addfile(info, video)
                for number, picture in enumerate(sample.pictures, start=1):
                    _add_bytes(archive, f"{key}.ref{number}.{picture.extension}", picture.data)
                text = json.dumps(describe_sample(sample), ensure_ascii=False)
                _add_bytes(archive, f"{key}.json", text.encode())
                yield {"shard": path}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.txt` and `validation.txt`, the names of the tar files."""
        commands = []
        for split in SPLITS:
            shards = list(dict.fromkeys(record["shard"] for record in export.read_records(split)))
            if shards:
                export.writer.write_text(f"{split}.txt", "".join(f"{shard}\n" for shard in shards))
                commands.append(
                    f"webdataset.WebDataset([...])  # {len(shards)} shards, listed in {split}.txt"
                )
        return commands

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check that every sample occurs once, with all its parts in one shard."""
        for split in SPLITS:
            shards = (
                output.read_bytes(f"{split}.txt").decode().split() if output.is_file(f"{split}.txt") else []
            )
            for shard in shards:
                yield from check_shard(output, shard)


def name_shard(split: str, number: int) -> str:
    """Return the path of the tar file of a unit."""
    return f"{split}-{number:06d}.tar"


def describe_sample(sample: Sample) -> dict[str, Any]:
    """Build the JSON part of a sample: caption, licence, subjects and references."""
    row = sample.row
    return {
        "clip_id": row["clip_id"],
        "video_id": row["video_id"],
        "caption": sample.caption,
        "license": row["license"],
        "extra": json.loads(row["extra"]) if row["extra"] else None,
        "fps": sample.video.fps,
        "frames": sample.video.frames,
        "width": sample.video.width,
        "height": sample.video.height,
        "subjects": [
            {key: subject[key] for key in ("subject_id", "category", "phrase", "frame_index", "box")}
            for subject in sample.subjects
        ],
        "references": [
            {"subject": picture.subject, "variant": picture.variant, "reference_id": picture.reference_id}
            for picture in sample.pictures
        ],
    }


def check_shard(output: Storage, shard: str) -> Iterator[str]:
    """Yield one message per problem of a tar file."""
    if not output.is_file(shard):
        yield f"{shard}: the file is missing"
        return
    for key, parts in read_tar_samples(output, shard):
        if "mp4" not in parts or "json" not in parts:
            yield f"{shard}, {key}: it has {', '.join(parts)}, needs mp4 and json"
            continue
        said = json.loads(parts["json"])
        if sum(name.startswith("ref") for name in parts) != len(said["references"]):
            yield f"{shard}, {key}: its pictures differ from those that its JSON lists"


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_build_tar_info(name, len(data)), io.BytesIO(data))


def _build_tar_info(name: str, size: int) -> tarfile.TarInfo:
    """Build a header without time or owner, so that the same samples give the same bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info
