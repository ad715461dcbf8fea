"""Every clip gets a sentence: the one that came with its video, else the captioner's."""

from __future__ import annotations

from collections.abc import Sequence

from curation.config import CurationConfig
from curation.imaging.codec import decode
from curation.models import registry
from curation.models.roles import Captioner
from curation.rows.schema import ClipRow
from curation.stages.stage import stop


class Caption:
    """Kaleido 3.2 (1). Manifest and sidecar captions arrive with the row and are kept as written."""

    name = "caption"

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._captioner: Captioner | None = None
        self._loaded = False

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        silent = [row for row in rows if not (row["caption"] or "").strip()]
        if silent and not self._loaded:
            self._captioner, self._loaded = registry.load(self._config, "captioner"), True
        if silent and self._captioner is not None:
            clips = [[decode(frame["image"]) for frame in row["frames"]] for row in silent]
            for row, caption in zip(silent, self._captioner.caption(clips), strict=True):
                row["caption"], row["caption_source"] = caption, registry.identity(self._captioner)
        for row in silent:
            if not (row["caption"] or "").strip() and self._config.caption.require:
                stop(row, "rejected", self.name, "no caption")
