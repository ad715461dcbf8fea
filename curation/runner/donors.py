"""Donors: other clips in which a subject is seen again, and reading their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from curation.config import CurationConfig
from curation.dataset.row_index import RowIndex
from curation.dataset.shards import ShardPlan, read_rows
from curation.models import registry
from curation.rows.schema import ClipRow
from curation.runner.job import CurationJob
from curation.runner.worker import get_cached, init_worker
from curation.stages.donors import Donor, SubjectEmbedding, embed_subjects, find_donors
from curation.stages.retrieve import FoundDonors
from reprise.storage import Storage

_READ_ROWS = 8  # clips at a time


@dataclass(frozen=True)
class DonorTable:
    """The donors of drawn subjects; small, as it travels to the workers."""

    model: str = ""  # id of the embedder that found them
    found: dict[str, dict[str, Donor]] = field(default_factory=dict)  # clip -> subject -> its donor
    entries: dict[str, RowIndex] = field(default_factory=dict)  # clip of a donor -> its row

    def select_shard(self, shard: ShardPlan) -> DonorTable:
        """Select what concerns the rows of one shard."""
        clips = [entry.clip_id for entry in shard.entries if entry.clip_id in self.found]
        found = {clip: self.found[clip] for clip in clips}
        wanted = sorted({each.clip_id for mine in found.values() for each in mine.values()})
        return DonorTable(self.model, found, {clip: self.entries[clip] for clip in wanted})


def build_donor_table(
    embeddings: Sequence[SubjectEmbedding], entries: Iterable[RowIndex], model: str, config: CurationConfig
) -> DonorTable:
    """Find the donors of the drawn subjects.

    Args:
        embeddings: Of all kept subjects of the dataset.
        entries: The rows that hold them.
        model: Id of the embedder.
        config: Which subjects are drawn, and how alike a pair must be.
    """
    clips = {each.subject_id: each.clip_id for each in embeddings}
    found: dict[str, dict[str, Donor]] = {}
    for subject, donor in find_donors(embeddings, config).items():
        found.setdefault(clips[subject], {})[subject] = donor
    return DonorTable(model, found, {entry.clip_id: entry for entry in entries})


def open_donor_library(storage: Storage, donors: DonorTable) -> FoundDonors:
    """Open a table of donors for the stage `retrieve`; their rows are read from `storage` on demand."""

    def load_clips(clip_ids: Sequence[str]) -> Iterator[ClipRow]:
        wanted = sorted((donors.entries[each] for each in clip_ids), key=lambda each: each.sort_key)
        for rows in read_rows(storage, wanted, _READ_ROWS):
            yield from rows

    name, revision, sha256 = registry.split_model_id(donors.model)
    found: Mapping[str, Donor] = {
        subject: donor for mine in donors.found.values() for subject, donor in mine.items()
    }
    return FoundDonors(name, revision, found, load_clips, sha256)


def embed_entries(job: CurationJob, entries: Sequence[RowIndex]) -> list[SubjectEmbedding]:
    """Embed the kept subjects of some rows in a worker."""
    init_worker(job)
    embedder = get_cached(
        ("embedder", job.config_hash), lambda: registry.load_required_backend(job.config, "embedder")
    )
    return [
        each
        for rows in read_rows(job.dataset, entries, _READ_ROWS)
        for each in embed_subjects(rows, embedder)
    ]
