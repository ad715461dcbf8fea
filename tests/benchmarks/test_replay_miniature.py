"""The miniature of proxy replay, but for its trainings: its configs, its table, its figure."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from benchmarks.miniature_runs import print_table
from benchmarks.replay_miniature import COLUMNS, STRATEGIES, SWEEP, VARIANTS, draw_figure, load_recipe
from training.config import IdentityTask, ReplayTask


def result(variant: str, seed: int, **scores: Any) -> dict[str, Any]:
    cosines = [(step, 0.1 * seed) for step in range(0, 200, 50)]
    found = {"variant": variant, "seed": seed, "minutes": 1.0, "cosines": cosines}
    return found | dict.fromkeys(COLUMNS, 0.5) | scores


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_the_recipe_but_for_what_it_names(variant: str) -> None:
    base = load_recipe("playground-replay")
    assert isinstance(base.tasks[0], IdentityTask) and isinstance(base.tasks[1], ReplayTask)
    for changes in VARIANTS[variant].stages:
        config = load_recipe("playground-replay", *changes)
        for section in ("steps", "optimizer", "conflict", "token"):
            assert getattr(config, section) == getattr(base, section)


def test_the_sweep_is_over_p() -> None:
    for p, name in SWEEP.items():
        (changes,) = VARIANTS[name].stages
        assert load_recipe("playground-replay", *changes).replay == p
    assert set(STRATEGIES) < set(VARIANTS)


def test_the_table_has_means_and_deviations_over_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    results = [result("replay", 0, motion=0.4), result("replay", 1, motion=0.6)]
    print_table([*results, result("joint", 0, cosine=None)], COLUMNS)
    head, _, replay, joint, *notes = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in head.split("|")[3:-2]] == list(COLUMNS)
    assert all(row.count("|") == head.count("|") for row in (replay, joint))
    assert replay.startswith("| replay | 2 | 0.50 ± 0.00 |") and "0.50 ± 0.14" in replay
    assert joint.startswith("| joint | 1 | 0.50 |")
    assert len(notes) == len([word for word in COLUMNS.values() if word])


def test_the_figure_is_a_picture_whatever_was_run() -> None:
    for results in ([result("replay", 0)], [result(name, seed) for name in VARIANTS for seed in (0, 1)]):
        assert Image.open(io.BytesIO(draw_figure(results))).size == (1300, 494)
