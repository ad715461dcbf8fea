"""MiniMax-H3 with references, trained by DiffSynth-Studio: a JSON-lines list below a base folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from curation.export.checks import check_references, check_video, read_json_lines
from curation.export.lists import write_json_lines
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.targets.h3_musubi import H3_NEEDS
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

_FRAME_RATE = 24


class H3DiffSynthTarget(ExportTarget):
    """References are pictures: at most nine. A clip is 24 frames per second and 17n+5 frames long."""

    name = "h3-diffsynth"
    title = "MiniMax-H3 references, DiffSynth-Studio"
    needs = H3_NEEDS
    holds = TargetHolds(references="1 to 9")

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `videos/KEY.mp4` and `references/KEY/1.png`, ..., and yield lines of the list."""
        for sample in samples:
            video, pictures = writer.put_sample(
                sample, f"videos/{sample.key}.mp4", f"references/{sample.key}/{{number}}.{{extension}}"
            )
            line = {
                "video": video,
                "prompt": sample.caption,
                "references": [{"type": "image", "image": path} for path in pictures],
                "frame_rate": _FRAME_RATE,
            }
            yield {"frames": sample.video.frames, "line": line}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.jsonl`, and `validation.jsonl` where clips were kept apart."""
        commands = []
        for split in export.splits:
            write_json_lines(
                export.writer, f"{split}.jsonl", (record["line"] for record in export.read_records(split))
            )
            # One number of frames holds for a run of this trainer: the one that every clip has.
            frames = min(record["frames"] for record in export.read_records(split))
            base = export.writer.output.uri
            commands.append(
                f"{split}: --dataset_base_path {base} --dataset_metadata_path {base}/{split}.jsonl "
                f'--data_file_keys "video,references" --extra_inputs "references" --num_frames {frames}'
            )
        return commands

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the rules of the loader: keys, rate, frames, sizes, and one to nine pictures."""
        for split in SPLITS:
            for line in read_json_lines(output, f"{split}.jsonl"):
                video = line.get("video")
                yield from check_video(output, video, self.needs.video)
                pictures = [each.get("image") for each in line.get("references") or ()]
                yield from check_references(output, video, pictures, self.needs.references)
                if not line.get("prompt"):
                    yield f"{video}: no prompt"
                if line.get("frame_rate") != _FRAME_RATE:
                    yield f"{video}: frame_rate is {line.get('frame_rate')}, not {_FRAME_RATE}"
