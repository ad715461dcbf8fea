"""diffusion-pipe: a folder of videos with captions beside them, and a TOML file. It takes no references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from curation.export.checks import check_captioned_folder
from curation.export.needs import ReferenceNeeds, TargetNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage


class DiffusionPipeTarget(ExportTarget):
    """Videos and captions alone."""

    name = "diffusion-pipe"
    title = "diffusion-pipe"
    needs = TargetNeeds(references=ReferenceNeeds(maximum=0), local=True)
    holds = TargetHolds(references="none")

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `SPLIT/KEY.mp4` and `SPLIT/KEY.txt`."""
        for sample in samples:
            writer.put_video(f"{sample.split}/{sample.key}.mp4", sample.video)
            writer.write_text(f"{sample.split}/{sample.key}.txt", sample.caption + "\n")
            yield {"frames": sample.video.frames}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write `train.toml`, and `validation.toml` where clips were kept apart."""
        commands = []
        for split in export.splits:
            lengths = sorted({record["frames"] for record in export.read_records(split)})
            export.writer.write_text(
                f"{split}.toml", _format_toml(export.writer.output.join_path(split), lengths)
            )
            commands.append(f"dataset config of diffusion-pipe ({split}): {split}.toml")
        return commands

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check that every video can be decoded and has a caption."""
        for split in SPLITS:
            yield from check_captioned_folder(output, split, self.needs.video)


def _format_toml(folder: str, lengths: Sequence[int]) -> str:
    # The trainer cuts each clip to the largest bucket that fits, so a few are enough.
    chosen = sorted({1, lengths[0], lengths[len(lengths) // 2], lengths[-1]})
    return (
        "resolutions = [512]\n"
        "enable_ar_bucket = true\n"
        "min_ar = 0.5\n"
        "max_ar = 2.0\n"
        "num_ar_buckets = 7\n"
        f"frame_buckets = {chosen}\n\n"
        "[[directory]]\n"
        f"path = '{folder}'\n"
        "num_repeats = 1\n"
    )
