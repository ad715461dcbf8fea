"""Decide a finished dataset again with other thresholds, from its stored scores.

No model runs, except to make the references that newly kept subjects lack, on request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.parquet as pq

from curation.config import CurationConfig, compute_config_hash
from curation.dataset.layout import MANIFEST_FILE, REFILTER_FOLDER, get_generation_path
from curation.dataset.manifest import build_manifest, list_named_shards, read_manifest, write_manifest
from curation.dataset.shards import ShardResult, write_shard
from curation.rows.references import list_kept_subjects
from curation.rows.schema import CLIPS, ClipRow, SubjectRow
from curation.rows.tables import check_columns, extract_rows
from curation.rows.thresholds import build_rules
from curation.rows.verdicts import decide_clip
from curation.runner.dataset_folder import publish_report, remove_stale_shards, remove_work
from curation.runner.graph import build_stage
from curation.runner.plates import build_plate_pool
from curation.stages.crosspair import VARIANT, Crosspair
from curation.stages.stage import Stage, run_stage
from reprise.digest import compute_digest
from reprise.errors import ConfigError, InputError
from reprise.lock import lock_folder
from reprise.progress import NoProgress
from reprise.settings import validate_settings, with_overrides
from reprise.storage import Storage


@dataclass
class RefilterChanges:
    """What new thresholds change: counts of subjects, if nothing else is stated."""

    newly_kept: Counter[str] = field(default_factory=Counter)  # by the reason that no longer holds
    newly_rejected: Counter[str] = field(default_factory=Counter)  # by the new reason
    kept_before: int = 0
    kept_after: int = 0
    clips_before: int = 0  # kept clips
    clips_after: int = 0
    unmeasured: Counter[str] = field(default_factory=Counter)  # threshold -> subjects without that score
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> references no longer kept
    regained: int = 0  # references kept again
    lacking: Counter[str] = field(default_factory=Counter)  # variant -> kept subjects that lack it

    @property
    def has_changes(self) -> bool:
        """Whether any subject is kept or rejected that was not before."""
        return bool(self.newly_kept or self.newly_rejected)


def refilter_dataset(
    dataset: Storage, overrides: Sequence[str], *, apply: bool = True, references: bool = False
) -> tuple[RefilterChanges, CurationConfig]:
    """Apply `filter.*` overrides to a finished dataset.

    Whenever it is killed, the manifest names the old shards or the new ones, all whole. The same command
    starts again. Subjects that are rejected now keep their references in the rows, so that the way back loses
    nothing. Missing crops are made, and the report.

    Args:
        dataset: A finished dataset.
        overrides: `filter.NAME=VALUE` each.
        apply: Write the dataset; False only counts the changes.
        references: Also make the missing inpaint, redux and crosspair references, with the config's models.

    Raises:
        RepriseError: There is no finished dataset, another run is writing it, or an override is of anything
            but `filter.*`.
    """
    if not apply:
        return _count_changes(dataset, overrides)
    with lock_folder(dataset) as lock:
        manifest, config = _load_config(dataset, overrides)
        _remove_leftovers(dataset, manifest)
        shards = [shard["path"] for shard in manifest["shards"]]
        plates = build_plate_pool(dataset, shards, config) if references else []
        decider = _Decider(config, manifest["models"], Crosspair(config, plates))
        made = ("crop", *decider.model_variants) if references else ("crop",)
        staged = [
            write_shard(
                dataset,
                f"{REFILTER_FOLDER}/{number:05d}.parquet",
                ([rows] for rows in decider.decide_shard(dataset, path, made)),
            )
            for number, path in enumerate(shards)
        ]
        if [each.blake2b for each in staged] == [shard.get("blake2b") for shard in manifest["shards"]]:
            results = [replace(each, path=path) for each, path in zip(staged, shards, strict=True)]
        else:
            results = _move_shards(dataset, staged, shards)
        fresh = build_manifest(config, decider.config_hash, manifest["models"], results, manifest["seconds"])
        lock.check_held()
        # From here on the new shards count.
        write_manifest(dataset, {**fresh, "created_at": manifest["created_at"]})
        remove_stale_shards(dataset, {each.path for each in results})
        publish_report(dataset, config, NoProgress())
    return decider.changes, config


def _remove_leftovers(dataset: Storage, manifest: dict[str, Any]) -> None:
    """Remove what killed runs left. The manifest holds, so nothing in `work/` counts.

    Rows of an earlier config there would count again once the thresholds are set back.
    """
    remove_work(dataset)
    remove_stale_shards(dataset, {shard["path"] for shard in manifest["shards"]})


def _move_shards(
    dataset: Storage, staged: Sequence[ShardResult], replaced: Sequence[str]
) -> list[ShardResult]:
    """Give new shards names of their own beside those that they replace: their content is in the name."""
    generation = compute_digest([each.blake2b for each in staged], length=8)
    results = []
    for result, path in zip(staged, replaced, strict=True):
        target = get_generation_path(path, generation)
        dataset.move_file(result.path, target)
        results.append(replace(result, path=target))
    return results


def _count_changes(dataset: Storage, overrides: Sequence[str]) -> tuple[RefilterChanges, CurationConfig]:
    manifest, config = _load_config(dataset, overrides)
    decider = _Decider(config, manifest["models"], Crosspair(config, []))
    for shard in manifest["shards"]:
        for _ in decider.decide_shard(dataset, shard["path"], ()):
            pass
    return decider.changes, config


def _load_config(dataset: Storage, overrides: Sequence[str]) -> tuple[dict[str, Any], CurationConfig]:
    """The manifest of a finished dataset, and its config with the overrides."""
    manifest = read_manifest(dataset)
    if manifest is None:
        raise InputError(
            f"{dataset.uri} has no {MANIFEST_FILE}: only a finished dataset can be decided again"
        )
    if not list_named_shards(manifest):
        manifest.pop("shards", None)
    missing = {"config", "models", "shards", "seconds", "created_at"} - manifest.keys()
    if missing:
        raise InputError(
            f"{dataset.join_path(MANIFEST_FILE)} has no {sorted(missing)[0]}: is it a Reprise dataset?"
        )
    other = [each for each in overrides if not each.startswith("filter.")]
    if other:
        raise ConfigError(f"{other[0]}: refilter changes filter.* only; anything else needs a new curation")
    stored = validate_settings(CurationConfig, manifest["config"], dataset.join_path(MANIFEST_FILE))
    return manifest, with_overrides(stored, overrides)


class _Decider:
    """Decides the rows of all shards, and counts what changes."""

    def __init__(self, config: CurationConfig, models: dict[str, str], crosspair: Crosspair) -> None:
        self.config_hash = compute_config_hash(config, models)
        self.changes = RefilterChanges()
        self._config, self._crosspair = config, crosspair
        self._rules = build_rules(config.filter)
        self._stages: dict[str, Stage] = {VARIANT: crosspair}
        wanted = {"inpaint": config.inpaint.enabled, "redux": config.redux.enabled, VARIANT: True}
        # What kept subjects should have, and what needs a model or the whole dataset.
        self.model_variants = tuple(variant for variant, on in wanted.items() if on)

    def decide_shard(self, dataset: Storage, path: str, variants: Sequence[str]) -> Iterator[list[ClipRow]]:
        """Decide the rows of a shard and make their missing references of these variants.

        Yields:
            The rows of one row group.
        """
        with dataset.open_input(path) as stream, pq.ParquetFile(stream) as parquet:
            check_columns(parquet.schema_arrow, CLIPS, dataset.join_path(path))
            for group in range(parquet.num_row_groups):
                rows = extract_rows(parquet.read_row_group(group, columns=CLIPS.names), CLIPS)
                for row in rows:
                    self._decide_row(row)
                for variant in variants:
                    self._make_missing_references(rows, variant)
                for row in rows:
                    for variant in self.model_variants:
                        self.changes.lacking[variant] += len(self._find_lacking_subjects(row, variant))
                yield rows
        self.changes.lacking = +self.changes.lacking

    def _decide_row(self, row: ClipRow) -> None:
        before = {subject["subject_id"]: subject["verdict"] for subject in row["subjects"]}
        pictures = [each for subject in row["subjects"] for each in subject["references"]]
        had = [each["kept"] for each in pictures]
        self.changes.clips_before += row["status"] == "kept"
        decide_clip(row, self._rules)
        self.changes.clips_after += row["status"] == "kept"
        for picture, was in zip(pictures, had, strict=True):
            self.changes.regained += picture["kept"] and not was
            if was and not picture["kept"]:
                self.changes.dropped[picture["reason"] or ""] += 1
        row["config_hash"] = self.config_hash
        for subject in row["subjects"]:
            old, new = before[subject["subject_id"]], subject["verdict"]
            if old is None or new is None:
                continue  # the clip stopped before its subjects were judged
            self.changes.kept_before += old["kept"]
            self.changes.kept_after += new["kept"]
            self.changes.unmeasured.update(new["unmeasured"])
            if new["kept"] and not old["kept"]:
                self.changes.newly_kept[old["reason"] or ""] += 1
            elif old["kept"] and not new["kept"]:
                self.changes.newly_rejected[new["reason"] or ""] += 1

    def _make_missing_references(self, rows: Sequence[ClipRow], variant: str) -> None:
        """Make one variant for the kept subjects that lack it; the others are not touched.

        If it cannot be made, its clip stays as it is, and the subject is counted as lacking it.
        """
        if variant not in self._stages:
            self._stages[variant] = build_stage(variant, self._config)
        for row in rows:
            lacking = self._find_lacking_subjects(row, variant)
            if not lacking:
                continue
            part: Any = {**row, "subjects": lacking}
            made = run_stage(self._stages[variant], [part], {})[0]
            if made["status"] == "kept":
                by_id = {subject["subject_id"]: subject for subject in made["subjects"]}
                row["subjects"] = [by_id.get(each["subject_id"], each) for each in row["subjects"]]

    def _find_lacking_subjects(self, row: ClipRow, variant: str) -> list[SubjectRow]:
        """The kept subjects that should have a reference of a variant and have none."""
        if row["status"] != "kept":
            return []
        return [
            subject
            for subject in list_kept_subjects(row)
            if all(reference["variant"] != variant for reference in subject["references"])
            and (variant != VARIANT or self._crosspair.is_drawn(subject))
        ]
