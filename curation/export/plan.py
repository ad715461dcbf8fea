"""Plan an export: choose clips, record why others are left out, split by source video, group into units."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curation.export.config import ExportConfig
from curation.export.facts import extract_light_rows, list_subjects, read_light_table
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
    planner = _Planner(target, config)
    chosen: dict[str, list[PlannedClip]] = {split: [] for split in SPLITS}
    left_out: list[LeftOutClip] = []
    with RowCondition(config.where, config.where_subject) as condition:
        for shard in shards:
            table = read_light_table(dataset, shard)
            clips, subjects = condition.select(table)
            names: dict[int, set[str]] = defaultdict(set)
            for number, subject_id in subjects or ():
                names[number].add(subject_id)
            for number, row in enumerate(extract_light_rows(table)):
                if clips is not None and number not in clips and row["status"] == "kept":
                    left_out.append(LeftOutClip(row["clip_id"], "where", "where"))
                    continue
                allowed = None if subjects is None else names[number]
                try:
                    planned = planner.plan_clip(row, shard, number, allowed)
                except _RefusedClipError as refusal:
                    left_out.append(LeftOutClip(row["clip_id"], refusal.reason, str(refusal)))
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


class _RefusedClipError(Exception):
    """A clip is left out; without a message, the reason says it all."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class _Planner:
    """Plans single clips for a target and settings."""

    def __init__(self, target: ExportTarget, config: ExportConfig) -> None:
        needs = target.needs.references
        self._target, self._config = target, config
        self._video = apply_video_config(target.needs.video, config.video)
        self._max_subjects = _choose_lower(needs.max_subjects, config.max_subjects)
        self._max_references = _choose_lower(needs.maximum, config.references.max_per_clip)
        is_required = config.references.required and needs.maximum != 0
        self._min_references = max(needs.minimum, 1 if is_required else 0)

    def plan_clip(
        self, row: dict[str, Any], shard: str, number: int, allowed: set[str] | None
    ) -> PlannedClip:
        """Plan a clip.

        Args:
            row: the row without pictures.
            shard: path of its shard.
            number: its position there.
            allowed: ids of the subjects that may be exported; None: all.

        Raises:
            _RefusedClipError: it is left out.
        """
        self._check_row(row)
        subjects = [each for each in list_subjects(row) if allowed is None or each["subject_id"] in allowed]
        if allowed is not None and not subjects:
            raise _RefusedClipError("where_subject")
        subjects = subjects[: self._max_subjects]
        references = draw_references(
            subjects, self._config.references, self._config.seed, self._max_references
        )
        if len(references) < self._min_references:
            raise _RefusedClipError(
                "too few references",
                f"{len(references)} references of the chosen variants; needs {self._min_references}",
            )
        video = plan_video(self._video, row["width"], row["height"], row["fps"], row["num_frames"])
        obstacle = video if isinstance(video, str) else self._target.find_obstacle(row, len(references))
        if isinstance(video, str) or obstacle:
            reason = str(obstacle)
            raise _RefusedClipError(reason.partition(":")[0], reason)
        names = tuple(each["subject_id"] for each in subjects)
        return PlannedClip(row["clip_id"], shard, number, names, tuple(references), video)

    def _check_row(self, row: dict[str, Any]) -> None:
        config = self._config
        if row["status"] != "kept":
            stop = row["stop"] or {}
            details = ": ".join(str(part) for part in (stop.get("stage"), stop.get("reason")) if part)
            raise _RefusedClipError(f"not kept: {row['status']}", details)
        is_other = config.licenses is not None and row["license"] not in config.licenses
        if is_other or row["license"] in config.exclude_licenses:
            raise _RefusedClipError("licence", f"its licence is {row['license'] or 'unknown'}")
        if not row["clip_path"]:
            raise _RefusedClipError("no clip")
        if self._target.needs.caption and not row["caption"]:
            raise _RefusedClipError("no caption")


def _choose_lower(*limits: int | None) -> int | None:
    """The lowest of some limits; None: there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def _group_clips(split: str, clips: Sequence[PlannedClip], size: int) -> Iterator[ExportUnit]:
    for number, first in enumerate(range(0, len(clips), size)):
        yield ExportUnit(split, number, first, tuple(clips[first : first + size]))
