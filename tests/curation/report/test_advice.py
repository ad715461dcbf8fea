"""What the report says where a profile without a trained model kept little."""

from __future__ import annotations

from typing import Any

import pytest

from curation.report.advice import suggest_models


def manifest(profile: str, videos: int, kept: int) -> dict[str, Any]:
    return {"config": {"profile": profile}, "videos": {"in": videos}, "subjects": {"kept": kept}}


def test_the_commands_stand_in_one_line() -> None:
    line = suggest_models(manifest("classical", 8, 1), "my videos", "out-small")
    assert line is not None and "\n" not in line
    assert line.startswith("1 subjects of 8 videos were kept")
    for command in (
        "pip install 'reprise[pretrained]'",
        "reprise models pull --size small",
        "reprise curate --input my videos --output out-small profile=pretrained models.size=small",
    ):
        assert command in line


@pytest.mark.parametrize(
    "enough", [manifest("classical", 8, 4), manifest("pretrained", 8, 0), manifest("classical", 0, 0), {}]
)
def test_nothing_is_said_where_enough_was_kept_or_the_models_are_real(enough: dict[str, Any]) -> None:
    assert suggest_models(enough) is None
