"""Check the invariants of a finished result after any interruption.

It reads files and imports no product code.

A finished result is one that a command ended with status 0. It is compared with the result of an undisturbed
run of the same command on the same input.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

_UNSTABLE_KEYS = {"created_at", "seconds"}  # the time and duration of the run


def check_dataset(found: Path, undisturbed: Path, videos_in: int) -> list[str]:
    """Check a curated dataset; return the violations."""
    manifest_file = found / "manifest.json"
    if not manifest_file.exists():
        return ["the command ended well and there is no manifest.json"]
    manifest = json.loads(manifest_file.read_bytes())
    rows = _read_rows(found)
    violations = [f"clip {clip} is in {count} rows" for clip, count in _count_clips(rows) if count > 1]
    for row in rows:
        path = row["clip_path"]
        if path is not None and not (found / path).is_file():
            violations.append(f"{path} is named by a row and is missing")
    violations += _check_checksums(found, manifest)
    configs = {row["config_hash"] for row in rows} | {manifest["config_hash"]}
    if len(configs) > 1:
        violations.append(f"rows of {len(configs)} configs are mixed: {', '.join(sorted(map(str, configs)))}")
    sources = {row["source_key"] for row in rows}
    if len(sources) != videos_in:
        violations.append(f"{videos_in} videos went in, rows of {len(sources)} came out")
    violations += _compare_rows(rows, _read_rows(undisturbed))
    violations += _compare_files(found, undisturbed, "clips")
    wanted = json.loads((undisturbed / "manifest.json").read_bytes())
    violations += [
        f"manifest.json differs in {key}"
        for key in sorted(manifest.keys() | wanted.keys())
        if key not in _UNSTABLE_KEYS and manifest.get(key) != wanted.get(key)
    ]
    return violations


def check_transaction(found: Path, before: Path, after: Path) -> list[str]:
    """Check that a killed refilter left the old or the new dataset; return the violations."""
    manifest = json.loads((found / "manifest.json").read_bytes())
    for wanted in (before, after):
        same = json.loads((wanted / "manifest.json").read_bytes())
        if manifest.get("config_hash") == same.get("config_hash"):
            named = [shard["path"] for shard in manifest["shards"]]
            rows = [row for path in named for row in pq.read_table(found / path).to_pylist()]
            return _compare_rows(rows, _read_rows(wanted))
    return ["manifest.json is neither of the old thresholds nor of the new ones"]


def check_tensors(found: Path, undisturbed: Path) -> list[str]:
    """Check that encoded latents have the same samples and tensors, bit for bit; return the violations."""
    mine, wanted = _read_tensors(found), _read_tensors(undisturbed)
    violations = [f"{name} is missing" for name in sorted(wanted.keys() - mine.keys())]
    violations += [f"{name} is not in an undisturbed run" for name in sorted(mine.keys() - wanted.keys())]
    violations += [
        f"{name} differs" for name in sorted(mine.keys() & wanted.keys()) if mine[name] != wanted[name]
    ]
    return violations


def check_model(found: Path, undisturbed: Path) -> list[str]:
    """Check that a model's folder has the same files and equal weights; return the violations."""
    mine, wanted = (_hash_files(each, "*.safetensors") for each in (found, undisturbed))
    if not wanted:
        return ["the undisturbed run wrote no weights"]
    return [f"{name} differs from an undisturbed run" for name in sorted(mine.keys() | wanted.keys())
            if mine.get(name) != wanted.get(name)]  # fmt: skip


def _read_rows(dataset: Path) -> list[dict[str, Any]]:
    manifest = json.loads((dataset / "manifest.json").read_bytes())
    rows: list[dict[str, Any]] = []
    for shard in manifest["shards"]:
        rows += pq.read_table(dataset / shard["path"]).to_pylist()
    return sorted(rows, key=lambda row: str(row["clip_id"]))


def _count_clips(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return sorted(Counter(row["clip_id"] for row in rows).items())


def _compare_rows(rows: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[str]:
    mine = {row["clip_id"]: row for row in rows}
    others = {row["clip_id"]: row for row in wanted}
    violations = [f"row {clip} is missing" for clip in sorted(others.keys() - mine.keys())]
    violations += [f"row {clip} is not in an undisturbed run" for clip in sorted(mine.keys() - others.keys())]
    for clip in sorted(mine.keys() & others.keys()):
        columns = [name for name in others[clip] if mine[clip].get(name) != others[clip][name]]
        if columns:
            violations.append(f"row {clip} differs in {', '.join(columns)}")
    return violations


def _check_checksums(dataset: Path, manifest: dict[str, Any]) -> list[str]:
    """Compare every file for which the manifest states a SHA-256, at any place in the manifest."""
    violations = []
    pending: list[Any] = [manifest]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending += part.values()
            path, sha256 = part.get("path"), part.get("sha256")
            if isinstance(path, str) and isinstance(sha256, str):
                file = dataset / path
                if not file.is_file():
                    violations.append(f"{path} is in the manifest and is missing")
                elif hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
                    violations.append(f"{path} has another checksum than the manifest states")
        elif isinstance(part, list):
            pending += part
    return violations


def _hash_files(folder: Path, pattern: str) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob(pattern))
        if file.is_file()
    }


def _compare_files(found: Path, undisturbed: Path, folder: str) -> list[str]:
    mine, wanted = _hash_files(found / folder, "*"), _hash_files(undisturbed / folder, "*")
    return [
        f"{folder}/{name} {'is left over' if name not in wanted else 'is missing or differs'}"
        for name in sorted(mine.keys() | wanted.keys())
        if mine.get(name) != wanted.get(name)
    ]


def _read_tensors(folder: Path) -> dict[str, bytes]:
    from safetensors import safe_open

    tensors: dict[str, bytes] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(str(file), "np") as opened:
            for name in opened.keys():  # noqa: SIM118 - the file is not iterable
                tensors[name] = opened.get_tensor(name).tobytes()
    return tensors
