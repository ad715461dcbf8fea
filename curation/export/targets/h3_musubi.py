"""MiniMax-H3 with references, trained by musubi-tuner: a JSON-lines list and a TOML file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from curation.export.checks import check_references, check_video, read_json_lines
from curation.export.lists import write_json_lines
from curation.export.needs import FrameRule, ReferenceNeeds, TargetNeeds, VideoNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

_FPS = 24.0
# The needs of MiniMax-H3. The other targets of this model share them.
H3_NEEDS = TargetNeeds(
    video=VideoNeeds(
        fps=_FPS, frames=FrameRule(step=17, offset=5, minimum=124, maximum=345), multiple=32, steady=True
    ),
    references=ReferenceNeeds(minimum=1, maximum=9),
)


class H3MusubiTarget(ExportTarget):
    """At most nine pictures per clip. A clip has 24 frames per second and 17n+5 frames."""

    name = "h3-musubi"
    title = "MiniMax-H3 references, musubi-tuner"
    needs = H3_NEEDS
    holds = TargetHolds(references="up to 9")

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `videos/KEY.mp4` and `references/KEY/1.png`, ..., and yield the lines of the list."""
        for sample in samples:
            video, pictures = writer.put_sample(
                sample, f"videos/{sample.key}.mp4", f"references/{sample.key}/{{number}}.{{extension}}"
            )
            references = [{"type": "image", "path": path} for path in pictures]
            line = {"video_path": video, "caption": sample.caption, "references": references}
            yield {"frames": sample.video.frames, "line": line}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.jsonl` and `train.toml`, and the same for validation."""
        commands = []
        for split in export.splits:
            lines = (record["line"] for record in export.read_records(split))
            write_json_lines(export.writer, f"{split}.jsonl", lines)
            lengths = sorted({record["frames"] for record in export.read_records(split)})
            export.writer.write_text(f"{split}.toml", _format_toml(split, lengths))
            commands.append(f"dataset config of musubi-tuner ({split}): {split}.toml")
        return commands

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the rules of the loader: keys, frames, rate, sizes, and one to nine pictures."""
        for split in SPLITS:
            for line in read_json_lines(output, f"{split}.jsonl"):
                yield from check_video(output, line.get("video_path"), self.needs.video)
                pictures = [each.get("path") for each in line.get("references") or ()]
                yield from check_references(output, line.get("video_path"), pictures, self.needs.references)
                if not line.get("caption"):
                    yield f"{line.get('video_path')}: no caption"


def _format_toml(split: str, lengths: Sequence[int]) -> str:
    return (
        "[general]\n"
        "batch_size = 1\n\n"
        "[[datasets]]\n"
        f'video_jsonl_file = "{split}.jsonl"\n'
        f'cache_directory = "cache-{split}"\n'
        f"target_frames = [{', '.join(map(str, lengths))}]\n"
        'frame_extraction = "head"\n'
        f"source_fps = {_FPS}\n"
    )
