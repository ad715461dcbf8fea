"""Kaleido's released training code: numbered videos, labels and folders of references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from curation.export.checks import check_references, check_video
from curation.export.needs import FrameRule, ReferenceNeeds, TargetNeeds, VideoNeeds
from curation.export.sample import SPLITS, Sample
from curation.export.target import ExportTarget, FinishedExport, Record, TargetHolds
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

_FPS = 16.0
_MIN_FRAMES = 87  # 81 are trained on, and the loader drops three at each end


class KaleidoTarget(ExportTarget):
    """Sixteen frames per second, because the loader never changes the rate; one to three PNG pictures."""

    name = "kaleido"
    title = "Kaleido"
    needs = TargetNeeds(
        video=VideoNeeds(fps=_FPS, frames=FrameRule(minimum=_MIN_FRAMES), steady=True),
        references=ReferenceNeeds(minimum=1, maximum=3, format="png"),
    )
    holds = TargetHolds(references="1 to 3")

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write `SPLIT/videos/N.mp4`, `SPLIT/labels/N.txt` and `SPLIT/references/N/ref1.png`, ..."""
        for sample in samples:
            number = sample.number
            writer.put_sample(
                sample,
                f"{sample.split}/videos/{number}.mp4",
                f"{sample.split}/references/{number}/ref{{number}}.{{extension}}",
            )
            # The loader reads the first line alone.
            writer.write_text(f"{sample.split}/labels/{number}.txt", " ".join(sample.caption.split()) + "\n")
            yield {"number": number, "clip_id": sample.row["clip_id"]}

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write nothing: the loader lists the folders."""
        base = export.writer.output.uri
        return [f"train_data of Kaleido's config ({split}): {base}/{split}" for split in export.splits]

    def check_export(self, output: Storage) -> Iterator[str]:
        """Check the rules of the loader: rate, frames, one line of label, one to three PNG pictures."""
        for split in SPLITS:
            for video in output.list_paths(f"{split}/videos", ".mp4"):
                stem = video.rpartition("/")[2].removesuffix(".mp4")
                yield from check_video(output, video, self.needs.video)
                pictures = output.list_paths(f"{split}/references/{stem}")
                yield from check_references(output, video, pictures, self.needs.references)
                wanted = [f"{split}/references/{stem}/ref{n}.png" for n in range(1, len(pictures) + 1)]
                if pictures != wanted:
                    yield f"{video}: its references are not named ref1.png, ref2.png, ..."
                label = f"{split}/labels/{stem}.txt"
                text = output.read_bytes(label).decode() if output.is_file(label) else ""
                if not text.strip() or len(text.strip().splitlines()) != 1:
                    yield f"{video}: {label} is not one line of text"
