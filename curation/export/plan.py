"""Plan an export: choose clips, record why others are left out, split by source video, group into units."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curation.export.config import ExportConfig
from curation.export.facts import extract_light_rows, list_subjects, read_light_table
from curation.export.needs import TargetNeeds
from curation.export.references import DrawnReference, draw_references
from curation.export.sample import SPLITS, TRAIN, VALIDATION
from curation.export.target import ExportTarget
from curation.export.video_plan import VideoPlan, apply_video_config, plan_video
from curation.export.where import RowCondition
from reprise.storage import Storage


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """A clip that will be exported."""

    clip_id: str
    shard: str  # path of its shard in the dataset
    row: int  # its position in the shard
    subject_ids: tuple[str, ...]  # the chosen subjects, in the order of the caption
    references: tuple[DrawnReference, ...]
    video: VideoPlan


@dataclass(frozen=True)
class ExportUnit:
    """Clips of one split that one task writes."""

    split: str
    number: int  # within the split, from 0
    first: int  # number of its first sample within the split
    clips: tuple[PlannedClip, ...]


@dataclass(frozen=True)
class LeftOutClip:
    """A clip that is not exported, and the reason."""

    clip_id: str
    reason: str  # short, and the same for all clips with this reason
    message: str  # details of this clip


@dataclass(frozen=True)
class ExportPlan:
    """The clips to export, in units, and the clips that are left out."""

    units: tuple[ExportUnit, ...]
    left_out: tuple[LeftOutClip, ...]

    @property
    def clips_in(self) -> int:
        """The number of rows of the dataset."""
        return len(self.left_out) + sum(len(unit.clips) for unit in self.units)

    def count_reasons(self) -> Counter[str]:
        """Return reason -> number of clips that are left out for it."""
        return Counter(clip.reason for clip in self.left_out)

    def count_splits(self) -> dict[str, int]:
        """Return split -> number of clips to export."""
        return {split: sum(len(unit.clips) for unit in self.units if unit.split == split) for split in SPLITS}


def plan_export(
    dataset: Storage, shards: Sequence[str], target: ExportTarget, config: ExportConfig
) -> ExportPlan:
    """Decide for every row of a dataset whether and how it is exported.

    Args:
        dataset: a finished dataset.
        shards: the paths of its shards, in order.
        target: the layout to write.
        config: the settings of the choice.

    Raises:
        ConfigError: a condition is not valid SQL or reads more than the rows.
        RepriseError: a shard is missing or damaged.
    """
    needs = target.needs
    chosen: dict[str, list[PlannedClip]] = {split: [] for split in SPLITS}
    left_out: list[LeftOutClip] = []
    with RowCondition(config.where, config.where_subject) as condition:
        for shard in shards:
            table = read_light_table(dataset, shard)
            clips, subjects = condition.select(table)
            for number, row in enumerate(extract_light_rows(table)):
                excluded = clips is not None and number not in clips
                allowed = None if subjects is None else {name for at, name in subjects if at == number}
                planned = _plan_row(row, shard, number, excluded, allowed, target, needs, config)
                if isinstance(planned, LeftOutClip):
                    left_out.append(planned)
                else:
                    split = choose_split(row["video_id"], config.validation, config.seed)
                    chosen[split].append(planned)
    units = [
        unit for split in SPLITS for unit in _group_clips(split, chosen[split], config.engine.unit_clips)
    ]
    return ExportPlan(tuple(units), tuple(left_out))


def choose_split(video_id: str | None, validation: float, seed: int) -> str:
    """Choose train or validation by the source video, so that all clips of a video are in one split.

    A video keeps its split when other videos are added.
    """
    digest = hashlib.blake2b(f"{seed}-{video_id}".encode(), digest_size=8).digest()
    return VALIDATION if int.from_bytes(digest, "big") / 2**64 < validation else TRAIN


def _plan_row(
    row: dict[str, Any],
    shard: str,
    number: int,
    excluded: bool,
    allowed: set[str] | None,
    target: ExportTarget,
    needs: TargetNeeds,
    config: ExportConfig,
) -> PlannedClip | LeftOutClip:
    def leave_out(reason: str, message: str = "") -> LeftOutClip:
        return LeftOutClip(row["clip_id"], reason, message or reason)

    if row["status"] != "kept":
        stop = row["stop"] or {}
        details = ": ".join(str(part) for part in (stop.get("stage"), stop.get("reason")) if part)
        return leave_out(f"not kept: {row['status']}", details)
    if excluded:
        return leave_out("where")
    if config.licenses is not None and row["license"] not in config.licenses:
        return leave_out("licence", f"its licence is {row['license'] or 'unknown'}")
    if row["license"] in config.exclude_licenses:
        return leave_out("licence", f"its licence is {row['license']}")
    if not row["clip_path"]:
        return leave_out("no clip")
    if needs.caption and not row["caption"]:
        return leave_out("no caption")
    subjects = [each for each in list_subjects(row) if allowed is None or each["subject_id"] in allowed]
    if allowed is not None and not subjects:
        return leave_out("where_subject")
    limits = [most for most in (needs.references.max_subjects, config.max_subjects) if most is not None]
    most_pictures = [
        most for most in (needs.references.maximum, config.references.max_per_clip) if most is not None
    ]
    subjects = subjects[: min(limits)] if limits else subjects
    references = draw_references(
        subjects, config.references, config.seed, min(most_pictures) if most_pictures else None
    )
    least = needs.references.minimum
    if config.references.required and needs.references.maximum != 0:
        least = max(1, least)
    if len(references) < least:
        return leave_out(
            "too few references", f"{len(references)} references of the chosen variants; needs {least}"
        )
    video = plan_video(
        apply_video_config(needs.video, config.video),
        row["width"],
        row["height"],
        row["fps"],
        row["num_frames"],
    )
    if isinstance(video, str):
        return leave_out(video.partition(":")[0], video)
    obstacle = target.find_obstacle(row, len(references))
    if obstacle:
        return leave_out(obstacle.partition(":")[0], obstacle)
    return PlannedClip(
        row["clip_id"],
        shard,
        number,
        tuple(each["subject_id"] for each in subjects),
        tuple(references),
        video,
    )


def _group_clips(split: str, clips: Sequence[PlannedClip], size: int) -> Iterator[ExportUnit]:
    for number, first in enumerate(range(0, len(clips), size)):
        yield ExportUnit(split, number, first, tuple(clips[first : first + size]))
