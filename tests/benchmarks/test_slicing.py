"""The slicing benchmark measures both sides and lists the parts of the cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.slicing import PARTS, main
from curation.video import sampling
from tests.videos import shots, write_video


def test_the_last_line_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sampling.measure_motion
    videos = [write_video(tmp_path / f"{name}.mp4", shots([60])) for name in "ab"]
    assert main([*map(str, videos), "--runs", "1"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ratio"] > 0 and result["cpu_ratio"] > 0
    assert result["files"].keys() == {"a.mp4", "b.mp4"}
    assert tuple(result["shares"]) == PARTS
    assert sum(result["shares"].values()) == pytest.approx(1, abs=0.01)
    assert result["machine"]["cores"] >= 1
    assert sampling.measure_motion is before  # the clocks are taken out again


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/nowhere.mp4"]) == 2
    assert "no such file: /nowhere.mp4" in capsys.readouterr().out
