"""The recipes of proxy replay, their cost, and the paper's variants of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipelines.train import main
from training.config import IdentityTask, ReplayTask, load_train_config

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

RECIPE = "proxy-replay-cogvideox-5b"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "proxy-replay.md"


def dry_run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["--dry-run", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def variants() -> list[tuple[str, list[str]]]:
    """(name, overrides) of the documented table."""
    block = DOCS.read_text(encoding="utf-8").split("## Variants as configurations")[1].split("```")[1]
    lines = [re.split(r"\s{2,}", line, maxsplit=1) for line in block.strip().splitlines()]
    return [(name, settings.split()) for name, settings in lines]


# ---- recipes ---------------------------------------------------------------------------------------------


def test_the_recipe_holds_the_papers_numbers() -> None:
    config = load_train_config(None, RECIPE, ())
    identity, replay = config.tasks
    assert isinstance(identity, IdentityTask) and isinstance(replay, ReplayTask)
    assert (identity.batch, replay.batch, config.replay, config.steps) == (256, 32, 0.2, 4_000)
    assert config.lora is not None
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (128, 64, 0.1)
    assert (config.optimizer.lr, config.optimizer.schedule) == (5e-5, "cosine_restarts")
    assert (replay.frame, replay.videos, config.token.kind) == ("random", 4_000, "trained")


def test_the_recipe_for_wan_is_the_same_but_for_the_model() -> None:
    ours, wan = (load_train_config(None, name, ()) for name in (RECIPE, "proxy-replay-wan2.2-ti2v-5b"))
    assert wan.positions.scheme == "first_frame" and wan.positions.reference_time == "zero"
    for section in ("tasks", "replay", "steps", "lora", "token", "optimizer", "conflict"):
        assert getattr(wan, section) == getattr(ours, section), section


@pytest.mark.parametrize(
    ("recipe", "size", "parameters", "tokens"),
    [
        # 30 x 45 tokens a frame: a picture and its reference; 13 latent frames and half of a reference.
        (RECIPE, "49x480x720", "6.07 B", ("2,700", "18,225")),
        # 15 x 26 tokens a frame (a latent is 16 px here); 21 latent frames.
        ("proxy-replay-wan2.2-ti2v-5b", "81x480x832", "5.32 B", ("780", "8,385")),
    ],
)
def test_a_recipe_fits_the_gpus_that_it_names(
    recipe: str, size: str, parameters: str, tokens: tuple[str, str]
) -> None:
    output = dry_run("--recipe", recipe, "--size", size, "--gpu-memory", "80GB")
    assert f"model     {parameters} parameters" in output
    for task, count in zip(("identity", "replay"), tokens, strict=True):
        assert re.search(rf"task      {task}: .*\n  tokens  {count} a sample", output)
    assert "fits into 80.0 GiB" in output
    assert "cost " in output


# ---- variants --------------------------------------------------------------------------------------------


def test_every_variant_of_the_paper_is_documented() -> None:
    found = {name for name, _ in variants()}
    assert {
        "image-only",
        "two-stage, first",
        "two-stage, second",
        "T2I + T2V joint",
        "without random frame",
        "without drop",
        "without <cls>",
        "p sweep",
        "video-count sweep",
    } <= found


@pytest.mark.parametrize(("name", "overrides"), variants())
def test_a_documented_variant_sets_what_its_line_describes(name: str, overrides: list[str]) -> None:
    config = load_train_config(None, RECIPE, tuple(overrides)).model_dump()
    for override in overrides:
        key, _, wanted = override.partition("=")
        value: Any = config
        for part in key.split("."):
            value = value[int(part) if part.isdigit() else part]
        assert str(value) == wanted or float(value) == float(wanted), override


# ---- cost ------------------------------------------------------------------------------------------------


def count_flops(task: Any, batch: Any, context: Any) -> int:
    """FLOPs of a real step, forward and backward, by PyTorch's own counter."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        losses, _ = task.compute_loss(batch, context)
        losses.sum().backward()
    return counter.get_total_flops()


def test_the_expected_cost_is_that_of_real_steps_of_both_tasks(tmp_path: Path) -> None:
    """Also with dropped tokens, and with steps of different batches."""
    from tests.training.replay_worlds import replay_config
    from tests.training.tiny_cogvideox import tiny_cogvideox
    from training.config import PositionsConfig
    from training.cost import replay_cost
    from training.cost.estimate import estimate_run
    from training.data.samples import SampleChoice
    from training.latents.store import Latents
    from training.models.build import build_family
    from training.models.components import load_scheduler
    from training.tasks.build import build_tasks
    from training.tasks.task import LossContext

    config = replay_config(tmp_path, lora=None, token={"kind": "none"}, replay=0.25)
    cost = replay_cost.compute_cost(estimate_run(config))
    assert cost is not None
    family, model = build_family(config.model), tiny_cogvideox()
    family.prepare_model(model)
    context = LossContext(
        model=model,
        family=family,
        objective=family.make_objective(config.objective, load_scheduler(config.model.path, None)),
        positions=PositionsConfig(),
        seed=0,
    )
    steps = []
    for task in build_tasks(config.tasks):
        latents = Latents(task.latents)
        samples = [
            latents.read_sample(index, latents.records[index], SampleChoice((0,)))
            for index in range(task.batch)
        ]
        steps.append(count_flops(task, task.collate_samples(samples, latents.manifest.text.length), context))
    assert (cost.image_step, cost.video_step) == pytest.approx(steps)
    assert cost.expected == pytest.approx(0.75 * steps[0] + 0.25 * steps[1])
    assert cost.share == pytest.approx(cost.expected / steps[1])
    single = replay_config(tmp_path, lora=None, token={"kind": "none"}, replay=0)
    assert replay_cost.compute_cost(estimate_run(single)) is None


def test_the_papers_sum_is_done_again() -> None:
    from training.cost.replay_cost import ReplayCost, describe_cost

    # As the paper counts: a video is 169 pictures, equal batches, p 0.2.
    cost = ReplayCost(p=0.2, image=1e9, video=169e9, image_batch=1, video_batch=1)
    assert cost.expected / cost.image_step == pytest.approx(34.6)
    assert cost.share == pytest.approx(1 - 0.795, abs=1e-3)
    assert ReplayCost(p=12.72 / 168, image=1, video=169, image_batch=1, video_batch=1).expected == (
        pytest.approx(13.72)
    )
    output = " ".join(" ".join(describe_cost(cost)).split())
    assert "0.8 + 0.2 x 169 = 13.72 pictures, 92.7 % less. The sum is 34.6, 79.5 % less" in output
    assert "13.72 would be 91.9 % less and need p = 0.076" in output
    assert "20.5 % of as many steps with only videos" in output
    assert describe_cost(None) == []
