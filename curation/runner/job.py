"""What the driver and the workers of a run tell each other."""

from __future__ import annotations

from dataclasses import dataclass

from curation.config import CurationConfig
from reprise.storage import Storage


@dataclass(frozen=True)
class CurationJob:
    """What every worker of a run must know; small, and the same for all of them."""

    config: CurationConfig
    dataset: Storage
    config_hash: str
    scratch: str | None = None  # folder for temporary files of workers; None: the default of the machine


@dataclass(frozen=True)
class FinishedRows:
    """Rows of a video that are in a fragment now."""

    source_key: str
    kept: int  # how many clips among them
    last: bool  # whether the last row of the video is
