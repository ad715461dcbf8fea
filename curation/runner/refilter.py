"""Decide a finished dataset again under other thresholds, from its stored numbers; no model runs.

What is asked for, and only then, is made by models: the references that newly kept subjects lack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.config import CurationConfig, compute_config_hash
from curation.dataset import MANIFEST, manifest
from curation.dataset.fragments import count_payload_bytes
from curation.dataset.shards import ShardResult
from curation.dataset.tally import Tally
from curation.rows.references import list_kept_subjects
from curation.rows.schema import CLIPS, ClipRow, SubjectRow
from curation.rows.tables import build_table, check_columns, extract_rows
from curation.rows.thresholds import build_rules
from curation.rows.verdicts import decide_clip
from curation.runner.graph import build_stage
from curation.stages.crosspair import VARIANT, Crosspair, build_plate_pool
from curation.stages.stage import Stage, run_stage
from reprise.errors import RepriseError
from reprise.settings import validate_settings, with_overrides
from reprise.storage import Storage


@dataclass
class RefilterChanges:
    """What new thresholds change. Counts of subjects unless said otherwise."""

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
        return bool(self.newly_kept or self.newly_rejected)


def refilter_dataset(
    dataset: Storage, overrides: Sequence[str], *, apply: bool = True, references: bool = False
) -> tuple[RefilterChanges, CurationConfig]:
    """Apply `filter.*` overrides to a finished dataset.

    Shards are replaced one by one, each whole, and the manifest last. Until then the dataset is a mixture; a
    refilter that was interrupted is completed by the same command. References of subjects that lose their
    place stay in the rows, so that the way back loses nothing. Crops are made where they lack.

    Args:
        apply: False only counts.
        references: also make the inpaint, redux and crosspair references that lack, with the config's models.

    Raises:
        RepriseError: no finished dataset there, or an override of anything but `filter.*`.
    """
    found = manifest.read(dataset)
    if found is None:
        raise RepriseError(f"{dataset.uri} has no {MANIFEST}: only a finished dataset can be decided again")
    missing = {"config", "models", "shards", "seconds", "created_at"} - found.keys()
    if missing:
        raise RepriseError(
            f"{dataset.join_path(MANIFEST)} has no {sorted(missing)[0]}: is it a Reprise dataset?"
        )
    other = [each for each in overrides if not each.startswith("filter.")]
    if other:
        raise RepriseError(f"{other[0]}: refilter changes filter.* only; anything else needs a new curation")
    config = with_overrides(
        validate_settings(CurationConfig, found["config"], dataset.join_path(MANIFEST)), overrides
    )
    shards = [shard["path"] for shard in found["shards"]]
    plates = build_plate_pool(dataset, shards, config) if apply and references else []
    decider = _Decider(config, compute_config_hash(config, found["models"]), Crosspair(config, plates))
    variants = ("crop", *decider.model_variants) if references else ("crop",)
    results = []
    for path in shards:
        result = ShardResult(path, 0, 0, Tally(), {})
        tables = decider.decide_tables(dataset, result, variants if apply else ())
        if apply:
            dataset.write_parquet(path, tables, CLIPS)
            result.bytes = dataset.get_size(path)
        else:
            for _ in tables:
                pass
        results.append(result)
    if apply:
        fresh = manifest.build_manifest(
            config, decider.config_hash, found["models"], results, found["seconds"]
        )
        manifest.write(dataset, {**fresh, "created_at": found["created_at"]})
    return decider.changes, config


class _Decider:
    """Goes over the shards once and decides every row."""

    def __init__(self, config: CurationConfig, config_hash: str, crosspair: Crosspair) -> None:
        self.config_hash = config_hash
        self.changes = RefilterChanges()
        self._config, self._crosspair = config, crosspair
        self._rules = build_rules(config.filter)
        self._stages: dict[str, Stage] = {VARIANT: crosspair}
        wanted = {"inpaint": config.inpaint.enabled, "redux": config.redux.enabled, VARIANT: True}
        # What kept subjects should have and takes a model, or the whole dataset, to make.
        self.model_variants = tuple(variant for variant, on in wanted.items() if on)

    def decide_tables(
        self, dataset: Storage, result: ShardResult, variants: Sequence[str]
    ) -> Iterator[pa.Table]:
        """The decided row groups of one shard, lacking references of the variants in `makes` made.

        Counts go into `result` and `changes`.
        """
        with dataset.open_input(result.path) as stream, pq.ParquetFile(stream) as parquet:
            check_columns(parquet.schema_arrow, CLIPS, dataset.join_path(result.path))
            for group in range(parquet.num_row_groups):
                rows = extract_rows(parquet.read_row_group(group, columns=CLIPS.names), CLIPS)
                for row in rows:
                    self._decide_row(row)
                for variant in variants:
                    self._make_missing_references(rows, variant)
                for row in rows:
                    for variant in self.model_variants:
                        self.changes.lacking[variant] += len(self._find_lacking_subjects(row, variant))
                    row["payload_bytes"] = count_payload_bytes(row)
                    result.tally.add_row(row)
                result.rows += len(rows)
                yield build_table(rows, CLIPS)
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
        """Make one variant for the kept subjects that lack it; others are not touched.

        What cannot be made leaves its clip as it is, and is counted as lacking.
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
        """The kept subjects that have no reference of a variant and should."""
        if row["status"] != "kept":
            return []
        return [
            subject
            for subject in list_kept_subjects(row)
            if all(reference["variant"] != variant for reference in subject["references"])
            and (variant != VARIANT or self._crosspair.is_drawn(subject))
        ]
