"""`reprise train`: its output before, during and after a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from pipelines.console import EXIT_USAGE
from pipelines.train import describe_longer_run, main, parse_memory
from training.config import KaleidoTask, TrainConfig, list_recipes, load_train_config
from training.loop.run_folder import COMPLETE_MARKER, RunFolder

pytest.importorskip("torch")
pytest.importorskip("diffusers")

SIZE = ["--size", "81x480x832"]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def one_line(result: Result) -> str:
    assert result.exit_code == EXIT_USAGE, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.training.worlds import tiny_config

    made = tmp_path_factory.mktemp("training")
    tiny_config(made)
    return made


# ---- recipes ---------------------------------------------------------------------------------------------


def test_the_recipes_of_the_paper_are_there() -> None:
    wanted = {f"kaleido-wan2.1-{size}-{stage}" for size in ("1.3b", "14b") for stage in ("pretrain", "sft")}
    assert wanted <= set(list_recipes())


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("kaleido-wan")])
def test_a_recipe_holds_the_papers_numbers(name: str) -> None:
    config = load_train_config(None, name, ())
    (task,) = config.tasks
    assert isinstance(task, KaleidoTask)
    mixture = task.mixture
    assert (mixture.crop, mixture.segment, mixture.inpaint, mixture.redux) == (1, 5, 3, 1)
    assert (mixture.crosspair, task.batch, task.caption_dropout) == (0.4, 256, 0.1)
    assert (config.optimizer.betas, config.optimizer.weight_decay, config.optimizer.clip) == (
        (0.9, 0.95),
        1e-4,
        0.1,
    )
    wanted = (1e-5, 10_000) if name.endswith("pretrain") else (5e-6, 5_000)
    assert (config.optimizer.lr, config.steps) == wanted


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [("kaleido-wan2.1-1.3b-pretrain", "1.42 B"), ("kaleido-wan2.1-14b-sft", "14.3 B")],
)
def test_a_recipe_fits_the_gpus_that_it_names(recipe: str, parameters: str) -> None:
    model = "Wan-AI/Wan2.1-T2V-14B-Diffusers" if "14b" in recipe else "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    result = invoke("--recipe", recipe, "--dry-run", "--gpu-memory", "80GB", *SIZE, f"model.path={model}")
    assert result.exit_code == 0, result.output
    assert f"model     {parameters} parameters" in result.output
    assert "34,320 to 37,440 a sample" in result.output
    assert "fits into 80.0 GiB" in result.output
    printed = yaml.safe_load(result.output.split("\n\nmodel ")[0])
    assert printed["model"]["path"] == model


def test_what_does_not_fit_is_refused_before_it_starts() -> None:
    output = one_line(
        invoke("--recipe", "kaleido-wan2.1-1.3b-pretrain", "--dry-run", "--gpu-memory", "24GB", *SIZE)
    )
    assert "which has 24.0 GiB; the smallest layout that fits: run.workers=" in output


# ---- a run's own latents ---------------------------------------------------------------------------------


def tiny(folder: Path, *more: str) -> list[str]:
    return [
        f"model.path={folder / 'model'}",
        "model.init=random",
        "tasks.0.kind=kaleido",
        f"tasks.0.latents={folder / 'latents'}",
        "tasks.0.batch=4",
        "compute.precision=fp32",
        f"run.output={folder / 'runs'}",
        *more,
    ]


def test_a_dry_run_counts_the_tokens_of_the_latents(folder: Path) -> None:
    result = invoke("--dry-run", *tiny(folder))
    assert result.exit_code == 0, result.output
    # 2x4x4 and 1x4x8 latents in patches of 2x2, and 1 to 3 references of the same size.
    assert "tokens  12 to 32 a sample, references included" in result.output
    assert "no GPU here" in result.output or "fits into" in result.output


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ([], "no task to train: give --recipe (kaleido-"),
        (["tasks.0.kind=video", "tasks.0.latents=x"], "model.path is empty"),
        (
            ["--recipe", "kaleido-wan2.1-1.3b-sft", "--config", "x.yaml"],
            "--config and --recipe: give one of them",
        ),
        (["--dry-run", "--recipe", "kaleido-wan2.1-1.3b-pretrain"], "no latents in"),
        (["--dry-run", "--recipe", "kaleido-wan2.1-1.3b-sft", *SIZE], "is no folder"),
        (["--config", "/nowhere.yaml"], "cannot read the config /nowhere.yaml"),
        (
            ["tasks.0.weight=0", "tasks.0.kind=video", "tasks.0.latents=x"],
            "tasks.0.weight: Input should be greater",
        ),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], output: str) -> None:
    assert output in one_line(invoke(*arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--gpu-memory", "lots"],
        ["--size", "81", "--dry-run"],
        ["--size", "81x480x832"],
        ["--recipe", "other"],
    ],
)
def test_options_that_cannot_be_are_usage_errors(arguments: list[str]) -> None:
    result = invoke(*arguments, "tasks.0.kind=video", "tasks.0.latents=x", "model.path=x")
    assert result.exit_code == EXIT_USAGE
    assert "Error:" in result.output


def test_memory_is_counted_as_makers_of_gpus_do() -> None:
    assert parse_memory("80GB") == parse_memory("80 GiB") == parse_memory("80") == 80 << 30


@pytest.mark.ray
def test_a_run_is_followed_to_its_end_and_again(folder: Path) -> None:
    arguments = tiny(
        folder, "steps=3", "log.every=1", "checkpoint.every=2", "validation.holdout=0", "run.name=command"
    )
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    assert "step 3/3 loss " in output
    assert "tokens/s" in output
    assert (folder / "runs" / "command" / "curves.png").is_file()
    assert "curves" in output
    again = invoke(*arguments)
    assert again.exit_code == 0, again.output
    assert "nothing to do" in again.output and "more with steps=NUMBER" in again.output
    other = invoke(*arguments, "steps=5", "seed=9")
    assert other.exit_code == 2 and "seed=" in other.output
    assert "resuming" not in other.output and "starting" not in other.output


def test_a_schedule_that_ends_is_not_said_to_go_on() -> None:
    config = TrainConfig.model_validate({"optimizer": {"schedule": "cosine"}})
    assert "with another run.name" in describe_longer_run(config)
    assert describe_longer_run(TrainConfig()) == "more with steps=NUMBER"


# ---- stops -----------------------------------------------------------------------------------------------


def test_a_stopped_run_says_what_is_kept(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"steps": 900, "run": {"output": str(tmp_path), "name": "one"}})
    folder = RunFolder.from_config(config.run)
    assert "starts from the beginning (checkpoint.every=500" in folder.describe_kept_steps(config)
    folder.root.write_bytes(f"{folder.get_checkpoint_path(500)}/{COMPLETE_MARKER}", b"{}")
    assert folder.describe_kept_steps(config).startswith("step 500 of 900 is saved")
