"""Decide a finished dataset again under other thresholds, from its stored numbers; no model runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.config import CurationConfig, content_hash, with_overrides
from curation.dataset import MANIFEST, manifest
from curation.dataset.fragments import payload_bytes
from curation.dataset.shards import ShardResult
from curation.dataset.tally import Tally
from curation.errors import RepriseError
from curation.graph import build_stage
from curation.schema import CLIPS, ClipRow, SubjectRow, check_columns, to_table
from curation.stages.base import run
from curation.storage import Storage
from curation.thresholds import Rule, rules
from curation.verdicts import decide_clip

# Made of what the row holds, so a refilter makes them; the others need a model, or the whole dataset.
_MADE_HERE = "crop"
_EXPECTED = ("inpaint", "redux")


@dataclass
class Changes:
    """What new thresholds change. Counts of subjects unless said otherwise."""

    newly_kept: Counter[str] = field(default_factory=Counter)  # by the reason that no longer holds
    newly_rejected: Counter[str] = field(default_factory=Counter)  # by the new reason
    kept_before: int = 0
    kept_after: int = 0
    clips_before: int = 0  # kept clips
    clips_after: int = 0
    unmeasured: Counter[str] = field(default_factory=Counter)  # threshold -> subjects without that score
    without: Counter[str] = field(default_factory=Counter)  # variant -> kept subjects that lack it

    @property
    def any(self) -> bool:
        return bool(self.newly_kept or self.newly_rejected)


def refilter(
    dataset: Storage, overrides: Sequence[str], *, apply: bool = True, references: bool = False
) -> tuple[Changes, CurationConfig]:
    """Apply `filter.*` overrides to a finished dataset.

    Shards are replaced one by one, each whole. A refilter that was interrupted is completed by the same
    command. References of subjects that lose their place stay in the rows, so that the way back loses nothing.

    Args:
        apply: False only counts.
        references: also make missing inpaint and redux references, with the backends of the config.

    Raises:
        RepriseError: no finished dataset there, or an override of anything but `filter.*`.
    """
    found = manifest.read(dataset)
    if found is None:
        raise RepriseError(f"{dataset.uri} has no {MANIFEST}: only a finished dataset can be decided again")
    other = [each for each in overrides if not each.startswith("filter.")]
    if other:
        raise RepriseError(f"{other[0]}: refilter changes filter.* only; anything else needs a new curation")
    config = with_overrides(CurationConfig.model_validate(found["config"]), overrides)
    active = rules(config.filter)
    changes = Changes()
    results = []
    for shard in found["shards"]:
        result = ShardResult(shard["path"], 0, shard["bytes"], Tally(), {})
        tables = _decided(dataset, shard["path"], active, changes, result, config if references else None)
        if apply:
            dataset.write_parquet(shard["path"], tables, CLIPS)
            result.bytes = dataset.size(shard["path"])
        else:
            for _ in tables:
                pass
        results.append(result)
    if apply:
        hash_now = content_hash(config, found["models"])
        fresh = manifest.compose(config, hash_now, found["models"], results, found["seconds"])
        manifest.write(dataset, {**fresh, "created_at": found["created_at"]})
    return changes, config


def _decided(
    dataset: Storage,
    path: str,
    active: Sequence[Rule],
    changes: Changes,
    result: ShardResult,
    references: CurationConfig | None,
) -> Iterator[pa.Table]:
    with dataset.open_input(path) as stream, pq.ParquetFile(stream) as parquet:
        check_columns(parquet.schema_arrow, CLIPS, dataset.join(path))
        for group in range(parquet.num_row_groups):
            rows = parquet.read_row_group(group).to_pylist()
            for row in rows:
                before = _kept(row)
                changes.clips_before += row["status"] == "kept"
                decide_clip(row, active)
                changes.clips_after += row["status"] == "kept"
                _compare(before, row, changes)
            rows = _complete(rows, references)
            for row in rows:
                for subject in row["subjects"]:
                    if subject["verdict"] and subject["verdict"]["kept"]:
                        have = {reference["variant"] for reference in subject["references"]}
                        changes.without.update(set(_EXPECTED) - have)
                row["payload_bytes"] = payload_bytes(row)
                result.tally.add(row)
            result.rows += len(rows)
            yield to_table(rows, CLIPS)


def _complete(rows: list[ClipRow], references: CurationConfig | None) -> list[ClipRow]:
    """Make the references that kept subjects lack: crops always, the modelled ones if asked for."""
    config = references or CurationConfig()
    for name in (_MADE_HERE, *(_EXPECTED if references else ())):
        variant = name if name != _MADE_HERE else "crop"
        lacking = [
            position
            for position, row in enumerate(rows)
            if any(_lacks(subject, variant) for subject in row["subjects"])
        ]
        if lacking:
            made = run(build_stage(name, config), [rows[position] for position in lacking], {})
            for position, row in zip(lacking, made, strict=True):
                rows[position] = row
    return rows


def _lacks(subject: SubjectRow, variant: str) -> bool:
    verdict = subject["verdict"]
    return bool(verdict and verdict["kept"]) and all(
        reference["variant"] != variant for reference in subject["references"]
    )


def _kept(row: ClipRow) -> dict[str, Any]:
    return {subject["subject_id"]: subject["verdict"] for subject in row["subjects"]}


def _compare(before: dict[str, Any], row: ClipRow, changes: Changes) -> None:
    for subject in row["subjects"]:
        old, new = before.get(subject["subject_id"]), subject["verdict"]
        if old is None or new is None:
            continue
        changes.kept_before += old["kept"]
        changes.kept_after += new["kept"]
        changes.unmeasured.update(new["unmeasured"])
        if new["kept"] and not old["kept"]:
            changes.newly_kept[old["reason"]] += 1
        elif old["kept"] and not new["kept"]:
            changes.newly_rejected[new["reason"] or ""] += 1
