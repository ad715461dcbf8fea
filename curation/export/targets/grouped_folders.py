"""What ai-toolkit and SimpleTuner share: folders of clips with equally many references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from curation.export.checks import check_captioned_folder, check_references
from curation.export.needs import TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import FinishedExport, Record
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage


def name_group(split: str, references: int) -> str:
    """Folder of the clips of a split that have so many references."""
    return f"{split}-{references}ref"


def write_grouped_samples(samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
    """Write `GROUP/videos/KEY.mp4`, `GROUP/videos/KEY.txt` and `GROUP/ref1/KEY.png`, ...

    A reference has the stem of its clip, and every clip of a group has equally many, so that each folder of
    references holds one file per clip.
    """
    for sample in samples:
        count = len(sample.pictures)
        group = name_group(sample.split, count)
        writer.put_sample(
            sample, f"{group}/videos/{sample.key}.mp4", f"{group}/ref{{number}}/{sample.key}.{{extension}}"
        )
        writer.write_text(f"{group}/videos/{sample.key}.txt", sample.caption + "\n")
        yield {"references": count, "frames": sample.video.frames, "fps": sample.video.fps}


def list_groups(export: FinishedExport, split: str) -> dict[int, int]:
    """Number of references -> the fewest frames of a clip with so many."""
    found: dict[int, int] = {}
    for record in export.read_records(split):
        count = record["references"]
        found[count] = min(record["frames"], found.get(count, record["frames"]))
    return dict(sorted(found.items()))


def check_groups(output: Storage, needs: TargetNeeds) -> Iterator[str]:
    """Check that each clip has a caption, and one picture in every folder of references of its group."""
    groups = [
        name for name in output.list_folders() if name.startswith(tuple(f"{split}-" for split in SPLITS))
    ]
    for group in groups:
        yield from check_captioned_folder(output, f"{group}/videos", needs.video)
        folders = [name for name in output.list_folders(group) if name.startswith("ref")]
        stems = {PurePosixPath(path).stem for path in output.list_paths(f"{group}/videos", ".mp4")}
        for folder in folders:
            pictures = output.list_paths(f"{group}/{folder}")
            counts = Counter(PurePosixPath(path).stem for path in pictures)
            for stem in sorted(stems ^ set(counts)):
                yield f"{group}/{folder}: {stem} is not in both it and videos"
            for path in pictures:
                yield from check_references(output, group, [path], needs.references)
