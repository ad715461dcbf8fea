"""A backend as anyone might write one: it crashes."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from curation.models.roles import Detection, DetectionScene, Phrase


class DeadlyDetector:
    """Takes its process down on captions that name a cat, as native code may; else sees nothing.

    With LIVELY in the environment it does no harm: another machine, or a better day.
    """

    name, revision = "deadly", "1"

    def detect(
        self, scenes: Sequence[DetectionScene], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Detection]]:
        cat = any("cat" in phrase.text for wanted_phrases in phrases for phrase in wanted_phrases)
        if cat and "LIVELY" not in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return [[] for _ in scenes]
