"""The benchmark of models derives costs from measured speeds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the pretrained profile is not installed")

from benchmarks import models
from benchmarks.models import PictureSize, Speed
from reprise.errors import RepriseError


def speed(per_second: float, batch: int = 1) -> Speed:
    return Speed(batch, batch, per_second, 1.0, None, None)


def test_cost_follows_from_speed_keep_rate_and_price() -> None:
    counts = {"clips": 100, "found": 50, "kept": 25}
    needed = models.compute_pictures_per_kept(counts)
    assert needed == {"detector": 12, "segmenter": 2, "scorer": 2, "flow": 36}
    spent = models.compute_seconds_per_kept({"detector": speed(6), "segmenter": speed(4)}, counts)
    assert spent == {"detector": 2, "segmenter": 0.5}
    assert models.compute_cost(3.6, 2.5) == pytest.approx(2.5)
    # With half as many kept subjects, each costs twice as much.
    rarer = models.compute_seconds_per_kept({"detector": speed(6)}, {**counts, "kept": 12.5})  # type: ignore[dict-item]
    assert rarer["detector"] == 4


def test_a_batch_is_run_until_its_time_is_up_and_pictures_are_counted() -> None:
    seen: list[int] = []

    def run(images: Sequence[Any]) -> None:
        seen.append(len(images))
        time.sleep(0.01)

    backend = SimpleNamespace(_batches=SimpleNamespace(size=2))  # memory allowed two
    found = models.measure_batch(run, PictureSize(32, 16), 4, 0.05, backend)
    assert len(seen) >= 2 and set(seen) == {4}, "once to warm up"
    assert (found.batch, found.ran_at) == (4, 2)
    assert 0 < found.per_second <= 4 / 0.01
    assert found.cpu_ms < 1000 / found.per_second, "sleeping is no work"


def test_the_keep_rate_comes_from_a_dataset(tmp_path: Path) -> None:
    assert models.read_counts(None) == models.DEMO
    manifest = {"clips": {"in": 9}, "subjects": {"found": 6, "kept": 3}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert models.read_counts(str(tmp_path)) == {"clips": 9, "found": 6, "kept": 3}
    manifest["subjects"]["kept"] = 0
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RepriseError, match="kept no subject"):
        models.read_counts(str(tmp_path))
    with pytest.raises(RepriseError, match="a finished dataset is needed"):
        models.read_counts(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("arguments", [["--batches", "0"], ["--batches", "x"], ["--large"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        models.main(arguments)
    assert caught.value.code == 2


def test_a_stage_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--small", "--stages", "captioner"]) == 2
    assert "no stage captioner; stages are detector, segmenter, scorer, flow" in capsys.readouterr().err


def test_small_runs_anywhere_and_ends_with_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--small", "--stages", "segmenter", "--batches", "1,2", "--seconds", "0"]) == 0
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert [each["batch"] for each in result["speeds"]["segmenter"]] == [1, 2]
    assert result["cost_per_1000_kept"] > 0 and result["small"] is True
