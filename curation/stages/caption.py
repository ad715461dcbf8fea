"""Caption clips. A caption that came with the video is kept; the captioner writes the others."""

from __future__ import annotations

from collections.abc import Sequence

from curation.config import CurationConfig
from curation.imaging.codec import decode_image
from curation.models import registry
from curation.models.roles import Captioner
from curation.rows.lifecycle import stop_row
from curation.rows.schema import ClipRow
from curation.rows.stage_names import CAPTION


class Caption:
    """Captions every clip (Kaleido 3.2 (1)). Captions from manifests and sidecar files do not change."""

    name = CAPTION

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._captioner: Captioner | None = None
        self._loaded = False

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Caption every row without a caption. With `caption.require`, reject rows that still have none."""
        uncaptioned = [row for row in rows if not (row["caption"] or "").strip()]
        if uncaptioned and not self._loaded:
            self._captioner, self._loaded = registry.load_backend(self._config, "captioner"), True
        if uncaptioned and self._captioner is not None:
            clips = [[decode_image(frame["image"]) for frame in row["frames"]] for row in uncaptioned]
            for row, caption in zip(uncaptioned, self._captioner.caption(clips), strict=True):
                row["caption"], row["caption_source"] = caption, registry.get_model_id(self._captioner)
        for row in uncaptioned:
            if not (row["caption"] or "").strip() and self._config.caption.require:
                stop_row(row, "rejected", self.name, "no caption")
