"""Every command of the README and the docs is checked in its exact form, and run if a laptop can run it."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reprise.errors import RepriseError
from reprise.settings import load_settings
from tests.docs.commands import (
    DOCUMENTS,
    OTHER_LANGUAGES,
    RECIPES,
    REPOSITORY,
    Block,
    Command,
    check_command,
    has_commands,
    read_blocks,
    read_commands,
    read_inline_commands,
)
from training.config import TrainConfig

BLOCKS = [block for document in DOCUMENTS for block in read_blocks(document)]
COMMANDS = [command for block in BLOCKS if has_commands(block) for command in read_commands(block)]
INLINE = [command for document in DOCUMENTS for command in read_inline_commands(document)]

# Fenced blocks without commands: (document, start of the first line) -> the test that checks it.
PRINTED = {
    ("README.md", "12 videos"): "test_the_demo_prints_what_the_readme_shows",
    ("CONTRIBUTING.md", "reprise/"): "tests/house/test_contributing.py",
    ("audit.md", "40 of 40 drawn subjects judged"): "answers of a person: an example",
    ("proxy-replay.md", "image-only"): "test_the_runs_of_the_paper_are_overrides_of_its_recipe",
    ("proxy-replay.md", "task      identity"): "tests/pipelines/test_replay_command.py",
    ("runs.md", "<run.output>/"): "tests/training/loop: files that a run writes",
}


def name_command(command: Command) -> str:
    return f"{command.place} {command.text[:60]}"


@pytest.mark.parametrize("command", COMMANDS, ids=name_command)
def test_a_command_has_only_options_and_settings_that_exist(command: Command) -> None:
    expected = next((line for line in command.output if line.startswith("error ")), None)
    try:
        check_command(command)
    except RepriseError as error:
        assert expected and str(error) in expected, f"{command.place}: {error}"
    else:
        assert expected is None or "needs" in expected, f"{command.place}: this does not fail as shown"


@pytest.mark.parametrize("command", INLINE, ids=name_command)
def test_a_command_in_a_sentence_exists(command: Command) -> None:
    check_command(command)


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language != "indented" and not has_commands(block)],
    ids=lambda block: f"{block.document.name}:{block.line}",
)
def test_every_fenced_block_is_a_command_a_program_or_is_tested_elsewhere(block: Block) -> None:
    if block.language in OTHER_LANGUAGES:
        return
    known = [
        first for (name, first) in PRINTED if name == block.document.name and block.lines[0].startswith(first)
    ]
    assert known, f"{block.document.name}:{block.line}: no test covers this block; see PRINTED"


def find_block(document: str, begins: str) -> Block:
    return next(b for b in BLOCKS if b.document.name == document and b.lines[0].startswith(begins))


def test_the_runs_of_the_paper_are_overrides_of_its_recipe() -> None:
    for line in find_block("proxy-replay.md", "image-only").lines:
        overrides = [word for word in line.split() if re.match(r"[\w.]+=", word)]
        assert overrides, line
        load_settings(TrainConfig, RECIPES / "proxy-replay-cogvideox-5b.yaml", tuple(overrides))


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "yaml" and block.document.name == "proxy-replay.md"],
    ids=lambda block: f"{block.document.name}:{block.line}",
)
def test_configs_of_training_are_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(block.lines))
    assert yaml.safe_load(path.read_text())
    load_settings(TrainConfig, path, ())


def list_outputs() -> list[str]:
    """Return what the documents' commands write below the repository, and the defaults of the commands."""
    named = [
        found[1]
        for command in COMMANDS
        for found in re.finditer(r"--(?:output|out) ([a-z][\w./-]*)(?:\s|$)", command.text)
    ]
    return sorted(
        {*named, "runs/run", "demo/dataset", "playground/videos", "playground/model", "conflict.png"}
    )


@pytest.mark.parametrize("output", list_outputs())
def test_git_and_ray_ignore_what_commands_write(output: str) -> None:
    # `ray job submit --working-dir .` uploads what .gitignore does not name.
    done = subprocess.run(
        [
            "git",
            "check-ignore",
            "--quiet",
            "--no-index",
            f"{output.rstrip('/')}{'' if '.' in output else '/x'}",
        ],
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, f".gitignore does not name {output}"


def run_command(text: str, folder: Path, *, check: bool = True) -> str:
    """Run a command of `reprise`, `python -m` or `make demo` in a folder; return its output."""
    words = shlex.split(text, comments=True)
    if words[0] == "reprise":
        words = [sys.executable, "-m", "pipelines.cli", *words[1:]]
    elif words[0] == "python":
        words[0] = sys.executable
    elif words == ["make", "demo"]:
        words = [sys.executable, "-m", "pipelines.demo", "--output", "demo/dataset"]
    done = subprocess.run(
        words,
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert not check or done.returncode == 0, f"{text}\n{done.stdout[-4000:]}"
    return done.stdout.replace(f"{folder}/", "")


def find_command(document: str, begins: str) -> Command:
    """Return the command of a document, in its exact form."""
    return next(c for c in COMMANDS if c.document.name == document and c.text.startswith(begins))


def strip_volatile(text: str) -> list[str]:
    """Return the lines of an output without colours, times, sizes and trailing blanks."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\N{NO-BREAK SPACE}", " ")
    text = re.sub(r"done in [\d.]+ \w+", "done in N s", text)
    text = re.sub(r"[\d.]+ [KM]B", "N MB", text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which `make demo` was run, and its output; the folder has `videos/` and `dataset/`."""
    folder = tmp_path_factory.mktemp("readme")
    printed = run_command("make demo", folder)
    shutil.copytree(folder / "demo" / "dataset", folder / "dataset")
    shutil.copytree(folder / "demo" / "videos", folder / "videos")
    return folder, printed


def assert_prints(printed: str, shown: list[str]) -> None:
    """Check that every line that a document shows is among those that were printed."""
    lines = strip_volatile(printed)
    missing = [line for line in strip_volatile("\n".join(shown)) if line != "..." and line not in lines]
    assert not missing, "\n".join(["not printed:", *missing, "printed:", *lines])


@pytest.mark.ray
def test_the_demo_prints_what_the_readme_shows(demo: tuple[Path, str]) -> None:
    assert_prints(demo[1], find_block("README.md", "12 videos").lines)


@pytest.mark.ray
def test_the_queries_print_what_the_docs_show(demo: tuple[Path, str]) -> None:
    found = [block for block in BLOCKS if block.document.name == "dataset.md"]
    programs = [block for block in found if block.language == "python"]
    shown = [
        line
        for block, following in itertools.pairwise(found)
        if block.language == "python" and following.language == "indented"
        for line in following.lines
    ]
    assert len(programs) == 7 and len(shown) > 20
    script = demo[0] / "queries.py"
    script.write_text("\n".join(line for block in programs for line in block.lines))
    assert_prints(run_command("python queries.py", demo[0]), shown)


@pytest.mark.ray
def test_a_preview_of_other_thresholds_is_what_the_docs_show(demo: tuple[Path, str]) -> None:
    command = find_command("filters.md", "reprise refilter --dataset dataset --dry-run")
    assert_prints(run_command(command.text, demo[0]), command.output)


@pytest.mark.ray
def test_other_thresholds_print_what_the_readme_shows(demo: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(demo[0] / "demo", tmp_path / "demo")
    command = find_command("README.md", "reprise refilter")
    assert_prints(run_command(command.text, tmp_path), command.output)


@pytest.mark.ray
def test_single_stages_run_one_after_the_other(demo: tuple[Path, str]) -> None:
    commands = [c for c in COMMANDS if c.document.name == "stages.md" and "reprise stage" in c.text]
    assert len(commands) >= 8
    for command in commands:
        assert_prints(run_command(command.text, demo[0]), command.output)


@pytest.mark.ray
@pytest.mark.parametrize(
    "begins", ["reprise report --dataset", "reprise doctor", "reprise models list", "reprise taxonomy"]
)
def test_small_commands_of_the_readme_run(demo: tuple[Path, str], begins: str) -> None:
    assert run_command(find_command("README.md", begins).text, demo[0], check="doctor" not in begins)


def test_a_caption_is_matched_as_the_docs_show(tmp_path: Path) -> None:
    command = find_command("taxonomy.md", "reprise taxonomy --match")
    assert_prints(run_command(command.text, tmp_path), command.output)


def test_a_config_that_is_printed_can_be_read(tmp_path: Path) -> None:
    command = find_command("config.md", "reprise config")
    program, target = command.text.split(" > ")
    (tmp_path / target).write_text(run_command(program, tmp_path))
    (tmp_path / "videos").mkdir()
    use = find_command("config.md", "reprise curate --input videos --output dataset --config")
    assert "sharpness_min: 60" in run_command(use.text + " --dry-run", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [c for c in COMMANDS if c.text.startswith("reprise train") and "--dry-run" in c.text and c.output],
    ids=name_command,
)
def test_a_dry_run_prints_what_the_docs_show(command: Command, tmp_path: Path) -> None:
    assert_prints(run_command(command.text, tmp_path, check=False), command.output)
