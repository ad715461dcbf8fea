"""The conflict monitor and PCGrad in the loop: exact, alike on two workers, and unseen by the training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from reprise.errors import RepriseError
from tests.training import replay_worlds
from tests.training.replay_worlds import replay_config
from tests.training.worlds import launch, together
from training.gradient_conflict.plot import plot_conflict


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conflict")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    """On one worker: runs with the monitor, without it, with PCGrad, and with that half of the way."""
    calls: dict[str, tuple[Any, ...]] = {
        "watched": (replay_worlds.watched, replay_config(folder, run=run(folder, "watched")), 2),
        "images": (
            replay_worlds.watched,
            replay_config(folder, run=run(folder, "images"), replay=0, conflict={"every": 2}),
            2,
        ),
        "plain": (replay_worlds.run, replay_config(folder, run=run(folder, "plain"))),
        "gradients": (replay_worlds.both_gradients, replay_config(folder)),
        "projected": (replay_worlds.projected, replay_config(folder, run=run(folder, "pc")), 2),
        "half": (replay_worlds.projected, replay_config(folder, run=run(folder, "half"), steps=3), 2),
    }
    return dict(zip(calls, launch(together, 1, *calls.values())[0], strict=True))


@pytest.fixture(scope="module")
def watched(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one["watched"]
    return found


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    """On the first of two workers: a step with the monitor, and a run with PCGrad."""
    sharded = {"parallel": {"shard": 2}}
    calls = [
        (replay_worlds.watched, replay_config(folder, run=run(folder, "two"), steps=1, **sharded), 2),
        (replay_worlds.projected, replay_config(folder, run=run(folder, "pc2"), **sharded), 2),
    ]
    found: list[dict[str, Any]] = launch(together, 2, *calls)[0]
    return found


def run(folder: Path, name: str) -> dict[str, str]:
    return {"name": name, "output": str(folder / "runs")}


def test_training_with_the_monitor_on_is_training_with_it_off(
    one: dict[str, Any], watched: dict[str, Any]
) -> None:
    plain = one["plain"]
    assert plain["losses"] == watched["losses"] and plain["samples"] == watched["samples"]
    assert all(torch.equal(plain["weights"][name], weight) for name, weight in watched["weights"].items())


def test_it_records_the_flat_gradients_of_both_tasks(one: dict[str, Any], watched: dict[str, Any]) -> None:
    """Brute force: whole gradients of the same plans at the same weights, as flat vectors."""
    steps = [step for step, _ in watched["records"]]
    assert steps == [0, 2, 4]
    first = watched["records"][0][1]
    a, b = (torch.cat([g.flatten().double() for g in each.values()]) for each in one["gradients"])
    assert first["conflict/cosine"] == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-9)
    assert first["conflict/norm/identity"] == pytest.approx(float(a.norm()), rel=1e-9)
    assert first["conflict/norm/replay"] == pytest.approx(float(b.norm()), rel=1e-9)
    assert {"conflict/modules/attention/cosine", "conflict/layers/00-00/cosine"} <= set(first)


def test_a_task_that_is_not_trained_is_compared_all_the_same(one: dict[str, Any]) -> None:
    """Image-only training, and either half of the two-stage."""
    records = one["images"]["records"]
    assert [step for step, _ in records] == [0, 2, 4]
    assert all(found["conflict/norm/replay"] > 0 and found["conflict/cosine"] != 0 for _, found in records)


def test_two_workers_record_what_one_does(watched: dict[str, Any], two: list[dict[str, Any]]) -> None:
    found = two[0]["records"][0][1]
    for name, value in watched["records"][0][1].items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_pcgrad_resumes_exactly_and_two_workers_project_as_one(
    folder: Path, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    whole = one["projected"]["weights"]
    (again,) = launch(replay_worlds.projected, 1, replay_config(folder, run=run(folder, "half")), 2)
    assert all(torch.equal(whole[name], weight) for name, weight in again["weights"].items())
    for name, weight in two[1]["weights"].items():
        torch.testing.assert_close(weight, whole[name], atol=1e-4, rtol=1e-3)


def test_the_plot_shows_what_was_recorded() -> None:
    records = [
        {"step": s, "conflict/cosine": -0.5 * 0.99**s, "conflict/norm/a": 1.0, "conflict/norm/b": 2.0}
        for s in range(0, 500, 50)
    ]
    image = Image.open(io.BytesIO(plot_conflict([*records, {"step": 7, "loss": 1.0}])))
    assert image.format == "PNG" and image.width > 1000
    with pytest.raises(RepriseError, match=r"conflict\.every"):
        plot_conflict([{"step": 1, "loss": 0.1}])
