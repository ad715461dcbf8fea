"""Open the pairs of pictures that `reprise encode --pairs` names. Each kind of source has one file."""

from __future__ import annotations

from reprise.errors import RepriseError
from reprise.storage import Storage
from training.latents.config import EncodeConfig
from training.latents.sources.curated_pairs import CuratedPairs
from training.latents.sources.listed_pairs import ListedPairs, is_list
from training.latents.sources.source import Source
from training.latents.sources.subjects200k import Subjects200K


def open_pairs(place: str, config: EncodeConfig) -> Source:
    """Open a curated dataset, Subjects200K, a list, or a folder of references and targets.

    Raises:
        RepriseError: the address holds none of these.
    """
    if is_list(place):
        return ListedPairs(place, config)
    folder = Storage.from_uri(place)
    if not folder.exists():
        raise RepriseError(f"no such folder or list: {folder.uri}")
    if folder.exists("manifest.json"):
        return CuratedPairs(folder, config)
    if {"references", "targets"} <= set(folder.list_folders()):
        return ListedPairs(place, config)
    if any(name.endswith(".parquet") for name in (*folder.list_names(), *folder.list_names("data"))):
        return Subjects200K(folder, config)
    raise RepriseError(
        f"{folder.uri} holds no pairs: give a dataset of `reprise curate`, Subjects200K's Parquet files, a "
        "folder with references/ and targets/, or a CSV, JSONL, JSON or Parquet list"
    )


__all__ = ["CuratedPairs", "ListedPairs", "Subjects200K", "open_pairs"]
