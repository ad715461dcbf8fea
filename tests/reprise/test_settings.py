"""One way to read settings, for both halves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import reprise.errors
from pipelines.config import main
from pipelines.console import EXIT_USAGE, handle_errors, print_config
from reprise.errors import RepriseError
from reprise.settings import list_keys, load_settings, validate_settings, with_overrides
from training.config import KaleidoTask, TrainConfig, VideoTask

TASK = ["tasks.0.kind=kaleido", "tasks.0.latents=there"]


def explain(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(RepriseError) as caught:
        load_settings(TrainConfig, path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "tasks:\n- {kind: kaleido, latents: a, mixture: {crop: 2}}\n- {kind: video, latents: b}\n"
    )
    config = load_settings(
        TrainConfig, path, ["tasks.0.mixture.inpaint=0", "tasks.1.batch=8", "optimizer.lr=1e-4"]
    )
    kaleido, video = config.tasks
    assert isinstance(kaleido, KaleidoTask)
    assert isinstance(video, VideoTask)
    assert (kaleido.mixture.crop, kaleido.mixture.inpaint, video.batch) == (2, 0, 8)
    assert config.optimizer.lr == 1e-4
    more = load_settings(TrainConfig, path, ["tasks.2.kind=video", "tasks.2.latents=c"])
    assert [task.latents for task in more.tasks] == ["a", "b", "c"]
    assert load_settings(TrainConfig, None, ["tasks=[{kind: video, latents: a}]"]).tasks == (
        VideoTask(latents="a"),
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lrr=1"], "unknown key optimizer.lrr; did you mean optimizer.lr?"),
        ([*TASK, "tasks.0.bach=32"], "unknown key tasks.0.bach; did you mean tasks.0.batch?"),
        ([*TASK, "tasks.0.mixture.redox=1"], "did you mean tasks.0.mixture.redux?"),
        (["micro_batch=2"], "unknown key micro_batch; did you mean tasks.0.micro_batch?"),
        ([*TASK, "tasks.0.batch=0"], "tasks.0.batch: Input should be greater than or equal to 1, not 0"),
        ([*TASK, "tasks.2.batch=1"], "tasks is a list; write tasks.NUMBER.KEY (0 to 0 are there, 1 would be"),
        ([*TASK, "tasks.batch=1"], "tasks is a list; write tasks.NUMBER.KEY"),
        (["tasks.batch=1"], "tasks is a list: write tasks.0.KEY=VALUE"),
        (["tasks.0.batch=1"], "tasks.0.kind is missing: kaleido, video, identity or replay"),
        (
            ["tasks.0.kind=kaleid"],
            "tasks.0.kind: must be kaleido, video, identity or replay, not 'kaleid'; did you mean kaleido?",
        ),
        (["tasks.0.kind=kaleido"], "tasks.0.latents is missing: folder that `reprise encode` wrote"),
        (["tasks=[3]"], "tasks.0"),
        (
            ["objective.shift=abc"],
            "objective.shift: Input should be 'resolution' or 'none', or a valid number",
        ),
        (["parallel.shard=0"], "parallel: shard must be -1 (all that are left) or at least 1"),
        (["optimizer.betas=[1]"], "optimizer.betas"),
        (["oops"], "write key=value, for example"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_key(overrides: list[str], message: str) -> None:
    assert message in explain(*overrides)


def test_a_mistake_is_blamed_on_who_made_it(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("optimizer: {lr: 1.0e-4}\nparallel: {shard: 2}\n")
    bad.write_text("optimizer: {lrr: 1}\n")
    for wrong in ("optimizer.lrr=1", "parallel.shard=0", "optimizer=3", "optimizer.lr=abc"):
        assert explain(wrong, path=good).startswith("the command line: "), wrong
    assert explain(path=bad).startswith(f"{bad}: unknown key optimizer.lrr")
    assert explain("steps=7", path=bad).startswith(f"{bad}: unknown key optimizer.lrr")
    assert explain("steps=7", path=tmp_path / "none.yaml").startswith("cannot read the config")


def test_one_value_of_the_wrong_kind_is_one_mistake() -> None:
    assert "more" not in explain("objective.shift=abc")
    assert explain("objective.shift=abc", "steps=0").endswith("(and 1 more)")


def test_a_training_config_survives_json() -> None:
    config = load_settings(TrainConfig, None, [*TASK, "objective.shift=3", "validation.every=100"])
    assert validate_settings(TrainConfig, config.model_dump(mode="json"), "the checkpoint") == config
    assert with_overrides(config, ["tasks.0.batch=8"]).tasks[0].batch == 8


def test_the_printed_training_config_loads_as_the_default_and_shows_every_task() -> None:
    printed = CliRunner().invoke(main, ["train"]).output
    assert validate_settings(TrainConfig, yaml.safe_load(printed), "the printed config") == TrainConfig()
    for key in list_keys(TrainConfig, with_entries=True):
        assert f"{key.rpartition('.')[2]}:" in printed


def test_a_task_is_what_is_left_when_its_comment_signs_are_taken_away() -> None:
    lines = CliRunner().invoke(main, ["train"]).output.splitlines()
    first = lines.index(next(line for line in lines if "- kind: video" in line))
    after = lines.index(next(line for line in lines[first + 1 :] if "- kind: " in line))
    entry = [line.replace("  # ", "  ", 1) for line in lines[first:after] if line.startswith("  # ")]
    (task,) = yaml.safe_load("\n".join(entry))
    config = validate_settings(TrainConfig, {"tasks": [task | {"latents": "there"}]}, "the printed task")
    assert config.tasks == (VideoTask(latents="there"),)


@pytest.mark.parametrize("error", [reprise.errors.RepriseError, reprise.errors.RepriseError])
def test_bad_input_of_either_half_ends_in_one_line(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    @handle_errors
    def failing() -> None:
        raise error("no such folder")

    with pytest.raises(SystemExit) as ended:
        failing()
    assert ended.value.code == EXIT_USAGE
    assert capsys.readouterr().err == "error no such folder\n"


def test_a_printed_config_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    print_config(load_settings(TrainConfig, None, ["run.output=s3://KEY:hunter@bucket/runs"]))
    printed = capsys.readouterr().out
    assert "output: s3://***@bucket/runs" in printed and "hunter" not in printed
