"""finetrainers and the training examples of diffusers: a list of file names and captions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from curation.export.checks import check_video, read_json_lines
from curation.export.lists import write_json_lines
from curation.export.needs import ReferenceNeeds, TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage


class FinetrainersTarget(ExportTarget):
    """Videos and captions: one list for finetrainers, and `prompts.txt` and `videos.txt` for diffusers."""

    name = "finetrainers"
    title = "finetrainers, diffusers examples"
    needs = TargetNeeds(references=ReferenceNeeds(maximum=0))
    holds = TargetHolds(references="none", licenses=True)

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `SPLIT/videos/KEY.mp4` and yield lines of the list."""
        for sample in samples:
            name = f"videos/{sample.key}.mp4"
            writer.put_video(f"{sample.split}/{name}", sample.video)
            yield {"file_name": name, "caption": sample.caption, "license": sample.row["license"]}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write the lists of both kinds into the folder of each split."""
        commands = []
        for split in export.splits:
            write_json_lines(export.writer, f"{split}/metadata.jsonl", export.read_records(split))
            for path, field in (("prompts.txt", "caption"), ("videos.txt", "file_name")):
                with export.writer.open_file(f"{split}/{path}") as stream:
                    for record in export.read_records(split):
                        stream.write((" ".join(record[field].split()) + "\n").encode())
            commands.append(f"data_root ({split}): {export.writer.output.join_path(split)}")
        return commands

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check that each line names a video that can be decoded, and that all lists are alike."""
        for split in SPLITS:
            if not output.is_file(f"{split}/metadata.jsonl"):
                continue
            lines = list(read_json_lines(output, f"{split}/metadata.jsonl"))
            for line in lines:
                yield from check_video(output, f"{split}/{line.get('file_name')}", self.needs.video)
                if not line.get("caption"):
                    yield f"{line.get('file_name')}: no caption"
            for path, field in (("prompts.txt", "caption"), ("videos.txt", "file_name")):
                listed = output.read_bytes(f"{split}/{path}").decode().splitlines()
                if listed != [" ".join(str(line.get(field)).split()) for line in lines]:
                    yield f"{split}/{path} does not agree with metadata.jsonl"
