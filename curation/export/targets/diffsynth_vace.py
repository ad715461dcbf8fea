"""Wan VACE trained by DiffSynth-Studio: a CSV list below a base folder, one reference a clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from curation.export.checks import check_references, check_video, read_csv
from curation.export.lists import write_csv
from curation.export.needs import ReferenceNeeds, TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

_COLUMNS = ("video", "prompt", "vace_reference_image")


class DiffSynthVaceTarget(ExportTarget):
    """One picture, because the trainer takes the first one of a list and ignores the others."""

    name = "diffsynth-vace"
    title = "Wan VACE, DiffSynth-Studio"
    needs = TargetNeeds(references=ReferenceNeeds(minimum=1, maximum=1, max_subjects=1))
    holds = TargetHolds(references="1")

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `videos/KEY.mp4` and `references/KEY.png`, and yield lines of the list."""
        for sample in samples:
            video, pictures = writer.put_sample(
                sample, f"videos/{sample.key}.mp4", f"references/{sample.key}.{{extension}}"
            )
            yield {"video": video, "prompt": sample.caption, "vace_reference_image": pictures[0]}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.csv`, and `validation.csv` where clips were kept apart."""
        commands = []
        for split in export.splits:
            write_csv(export.writer, f"{split}.csv", _COLUMNS, export.read_records(split))
            base = export.writer.output.uri
            commands.append(
                f"{split}: --dataset_base_path {base} --dataset_metadata_path {base}/{split}.csv "
                '--data_file_keys "video,vace_reference_image" --extra_inputs "vace_reference_image"'
            )
        return commands

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the rules of the loader: columns, decodable videos, one picture each."""
        for split in SPLITS:
            for line in read_csv(output, f"{split}.csv", _COLUMNS):
                yield from check_video(output, line["video"], self.needs.video)
                yield from check_references(
                    output, line["video"], [line["vace_reference_image"]], self.needs.references
                )
                if not line["prompt"]:
                    yield f"{line['video']}: no prompt"
