"""`manifest.json` describes a dataset. It is written last: a dataset without it is not finished."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from curation.config import CurationConfig
from curation.dataset.layout import DATA_FOLDER, MANIFEST_FILE
from curation.dataset.shards import ShardResult
from curation.dataset.tally import Tally
from curation.rows.thresholds import Thresholds, build_rules
from reprise.errors import RepriseError, StorageError
from reprise.json_files import read_json_object
from reprise.package_version import get_package_version
from reprise.storage import Storage

_PACKAGES = (
    "reprise",
    "ray",
    "pyarrow",
    "numpy",
    "opencv-python-headless",
    "av",
    "scenedetect-headless",
    "scikit-image",
)


def read_manifest(dataset: Storage) -> dict[str, Any] | None:
    """Read the manifest; None if there is none, so that the dataset is not finished.

    Raises:
        StorageError: It is not JSON, or not what a run writes.
    """
    found = read_json_object(dataset, MANIFEST_FILE, "it is not a Reprise manifest")
    if found is None:
        return None
    try:
        _ManifestForm.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise StorageError(
            f"{dataset.join_path(MANIFEST_FILE)} is damaged: {key}: {first['msg'].lower()}; was it edited by "
            "hand?"
        ) from error
    return found


class _ShardForm(BaseModel):
    path: str = Field(pattern=rf"^{DATA_FOLDER}/[^/]+$")
    rows: int = Field(ge=0)


class _ManifestForm(BaseModel):
    """What commands read of a manifest; further keys are fine, and an older manifest may lack some."""

    shards: list[_ShardForm] = []
    config_hash: str = ""
    config: dict[str, Any] = {}
    models: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    videos: dict[str, int] = {}
    clips: dict[str, int] = {}
    subjects: dict[str, Any] = {}
    references: dict[str, Any] = {}
    reasons: dict[str, dict[str, int]] = {}
    funnel: list[dict[str, Any]] = []
    thresholds: list[dict[str, Any]] = []


def write_manifest(dataset: Storage, manifest: dict[str, Any]) -> None:
    """Write the manifest, which makes the dataset a finished one."""
    dataset.write_bytes(MANIFEST_FILE, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


def build_manifest(
    config: CurationConfig,
    config_hash: str,
    revisions: dict[str, str],
    shards: Sequence[ShardResult],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Build the manifest of a finished dataset.

    Args:
        config: The config that made the rows.
        config_hash: Its hash, with the revisions of the models.
        revisions: Role to id of the model that had it.
        shards: All shards of the dataset.
        seconds: Work per stage, s, summed over all workers.
    """
    total = Tally()
    for shard in shards:
        total.merge(shard.tally)
    return {
        "format": "reprise-clips-1",
        "reprise_version": get_package_version("reprise"),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "finished": True,
        "config_hash": config_hash,
        "config": config.model_dump(mode="json"),
        "models": revisions,
        "versions": {
            "python": platform.python_version(),
            **{name: get_package_version(name) for name in _PACKAGES},
        },
        **total.summarize_counts(),
        "thresholds": describe_thresholds(config.filter),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "shards": [
            {"path": shard.path, "rows": shard.rows, "bytes": shard.bytes, "blake2b": shard.blake2b}
            for shard in sorted(shards, key=lambda each: each.path)
        ],
    }


def list_named_shards(manifest: Mapping[str, Any]) -> list[str]:
    """List the paths of the shards that count; [] where the manifest names none or is not one of ours."""
    shards = manifest.get("shards")
    found = (
        [each.get("path") for each in shards if isinstance(each, dict)] if isinstance(shards, list) else []
    )
    return [path for path in found if isinstance(path, str)]


def describe_thresholds(thresholds: Thresholds) -> list[dict[str, Any]]:
    """List the thresholds as the manifest stores them: one record per rule."""
    return [
        {
            "name": rule.name,
            "score": rule.score,
            "bound": rule.bound,
            "value": rule.value,
            "applies_to": rule.group or "all",
            "source": rule.source,
        }
        for rule in build_rules(thresholds)
    ]


def check_accounting(manifest: dict[str, Any], *, videos_in: int, rows_in: int) -> None:
    """Check that rows in = rows out, and videos in = kept + rejected + failed.

    Raises:
        RepriseError: They differ, so rows were lost.
    """
    videos = manifest["videos"]
    accounted = videos["kept"] + videos["rejected"] + videos["failed"]
    rows = sum(shard["rows"] for shard in manifest["shards"])
    if accounted != videos_in or rows != rows_in:
        raise RepriseError(
            f"{videos_in} videos in {rows_in} rows went in, but {accounted} in {rows} are accounted for: the "
            "dataset is not complete; run the same command again, and please report this"
        )
