"""What to do where a run of the profile `classical` kept little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_ENOUGH_SUBJECTS: Final = 0.5  # kept subjects per video, below which the advice is given; ours


def suggest_models(
    manifest: Mapping[str, Any], source: str = "VIDEOS", output: str = "DATASET"
) -> str | None:
    """Suggest real models where the profile without a trained model kept few subjects.

    Args:
        manifest: of the dataset.
        source: the videos, for the command.
        output: folder of a new dataset, for the command.

    Returns:
        One line with the commands; None: enough was kept, or another profile made the dataset.
    """
    profile = (manifest.get("config") or {}).get("profile")
    videos = (manifest.get("videos") or {}).get("in", 0)
    kept = (manifest.get("subjects") or {}).get("kept", 0)
    if profile != "classical" or not videos or kept >= _ENOUGH_SUBJECTS * videos:
        return None
    return (
        f"{kept} subjects of {videos} videos were kept: the profile classical has no trained detector. Small "
        "real models run on a CPU (1.7 GB): pip install 'reprise[pretrained]' && reprise models pull --size "
        f"small && reprise curate --input {source} --output {output} profile=pretrained models.size=small"
    )
