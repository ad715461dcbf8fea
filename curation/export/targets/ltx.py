"""LTX-2 trainer: a JSON-lines list; the references of a clip are the frames of one video."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from curation.export.checks import check_video, read_json_lines
from curation.export.lists import write_json_lines
from curation.export.needs import FrameRule, ReferenceNeeds, TargetNeeds, VideoNeeds
from curation.export.reference_video import write_reference_video
from curation.export.sample import SPLITS, Sample, SampleVideo
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from curation.imaging.codec import decode_image
from reprise.storage import Storage

_FRAMES_PER_LATENT = 8
_MULTIPLE = 32  # px


class LtxTarget(ExportTarget):
    """A clip has 8k+1 frames. Each reference becomes one latent frame of `reference_video`."""

    name = "ltx"
    title = "LTX-2 trainer"
    needs = TargetNeeds(
        video=VideoNeeds(
            frames=FrameRule(step=_FRAMES_PER_LATENT, offset=1, minimum=9), multiple=_MULTIPLE, steady=True
        ),
        references=ReferenceNeeds(minimum=1),
    )
    holds = TargetHolds(references="any number, as frames of one video")

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `videos/KEY.mp4` and `references/KEY.mp4`, and yield lines of the list."""
        for sample in samples:
            video, reference = f"videos/{sample.key}.mp4", f"references/{sample.key}.mp4"
            writer.put_video(video, sample.video)
            size, fps = (sample.video.width, sample.video.height), sample.video.fps
            pictures = [decode_image({"bytes": each.data, "path": None}) for each in sample.pictures]
            with tempfile.TemporaryDirectory(prefix="reprise-export-") as folder:
                path = Path(folder) / "references.mp4"
                frames = write_reference_video(pictures, path, size, fps, _FRAMES_PER_LATENT)
                writer.put_video(reference, SampleVideo(path, False, frames, fps, *size))
            yield {"media_path": video, "caption": sample.caption, "reference_video": reference}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.jsonl`, and `validation.jsonl` where clips were kept apart."""
        commands = []
        for split in export.splits:
            write_json_lines(export.writer, f"{split}.jsonl", export.read_records(split))
            path = export.writer.output.join_path(f"{split}.jsonl")
            commands.append(
                f"process_dataset.py {path} --video-column media_path --caption-column caption "
                "--reference-column reference_video"
            )
        return commands

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the rules of the trainer: 8k+1 frames in both videos, sides that are multiples of 32 px."""
        rule = VideoNeeds(frames=FrameRule(step=_FRAMES_PER_LATENT, offset=1), multiple=_MULTIPLE)
        for split in SPLITS:
            for line in read_json_lines(output, f"{split}.jsonl"):
                yield from check_video(output, line.get("media_path"), self.needs.video)
                yield from check_video(output, line.get("reference_video"), rule)
                if not line.get("caption"):
                    yield f"{line.get('media_path')}: no caption"
