"""One dataset, one config: rows that were made with two configs are not comparable."""

from __future__ import annotations

import json
from typing import Any

from curation.config import CurationConfig
from curation.dataset.layout import CONFIG_FILE, WORK_FOLDER, get_config_path
from reprise.errors import ConfigError
from reprise.settings import flatten_keys
from reprise.storage import Storage

_NO_CONTENT = ("engine.", "report.", "shard.")  # sections that no row depends on


def write_run_config(dataset: Storage, config: CurationConfig, config_hash: str) -> None:
    """Store the config of a run that is about to begin."""
    dataset.write_bytes(get_config_path(config_hash), config.model_dump_json(indent=1).encode())


def refuse_other_config(
    dataset: Storage, manifest: dict[str, Any] | None, config: CurationConfig, config_hash: str
) -> None:
    """Refuse to mix configs: that of the manifest, if there is one, or of an unfinished run.

    Raises:
        ConfigError: The dataset was made with another config; it names what differs and what to do.
    """
    if manifest is not None and manifest.get("config_hash") != config_hash:
        raise ConfigError(_explain_other_config(dataset, manifest.get("config", {}), config))
    for file in dataset.list_paths(WORK_FOLDER, CONFIG_FILE):
        if file != get_config_path(config_hash):
            other = json.loads(dataset.read_bytes(file))
            raise ConfigError(_explain_other_config(dataset, other, config))


def _explain_other_config(dataset: Storage, other: dict[str, Any], config: CurationConfig) -> str:
    old, new = flatten_keys(other), flatten_keys(config.model_dump(mode="json"))
    changed = [
        f"{key}: {old.get(key)} there, {new.get(key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(_NO_CONTENT)
    ]
    what = "; ".join(changed[:3]) or "another version of a model or of Reprise"
    thresholds = bool(changed) and all(each.startswith("filter.") for each in changed)
    hint = "use `reprise refilter` for thresholds" if thresholds else "choose another --output"
    return f"{dataset.uri} was made with another config ({what}): {hint}, or start over with --overwrite"
