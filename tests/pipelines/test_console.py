"""What a command prints when a person can correct the cause."""

from __future__ import annotations

import errno
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from pipelines.console import EXIT_USAGE, LineConsole, explain_missing_crosspairs, handle_errors
from reprise.errors import StoppedRunError


def run(error: BaseException) -> Result:
    @click.command()
    @handle_errors
    def fail() -> None:
        raise error

    return CliRunner().invoke(fail)


def test_a_missing_optional_package_names_the_extra_that_installs_it() -> None:
    result = run(ModuleNotFoundError("No module named 'torch'", name="torch.nn"))
    assert result.exit_code == EXIT_USAGE
    assert "pip install 'reprise[train]'" in result.output and "Traceback" not in result.output


def test_a_missing_module_of_our_own_is_a_bug_and_not_hidden() -> None:
    result = run(ModuleNotFoundError("No module named 'curation.gone'", name="curation.gone"))
    assert isinstance(result.exception, ModuleNotFoundError)


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EACCES, errno.ENOSPC])
def test_a_file_that_cannot_be_written_is_one_line(number: int, tmp_path: Path) -> None:
    result = run(OSError(number, "refused", str(tmp_path / "out.mp4")))
    assert result.exit_code == EXIT_USAGE
    assert len(result.output.strip().splitlines()) == 1 and str(tmp_path) in result.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_a_command_that_waits_in_a_library(number: signal.Signals) -> None:
    code = (
        "import hashlib\n"
        "from pipelines import console\n"
        "console._END_LIMIT_S = 1\n"
        "@console.handle_errors\n"
        "def wait():\n"
        "    print('waiting', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"  # minutes, and no handler runs
        "wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"waiting\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, b"run the same command again to go on" in errors) == (130, True)


def test_a_run_that_was_stopped_from_outside_has_a_status_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @handle_errors
    def run() -> None:
        raise StoppedRunError("Ray died; run the same command again to go on")

    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 75
    assert "stopped Ray died; run the same command again to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("report   {here}/dataset/report/index.html", "report   dataset/report/index.html"),
        ("error no such file: {here}/a.csv", "error no such file: a.csv"),
        ("s3://bucket{here}/dataset", "s3://bucket{here}/dataset"),
        ("/mnt{here}/dataset", "/mnt{here}/dataset"),
        ("{here}-other/dataset", "{here}-other/dataset"),
        ("{here}/", "{here}/"),
    ],
)
def test_paths_inside_the_working_directory_are_relative_to_it(
    text: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    console = LineConsole(file=io.StringIO(), width=1000)
    console.print(text.format(here=tmp_path), soft_wrap=True)
    assert console.file.getvalue() == shown.format(here=tmp_path) + "\n"  # type: ignore[attr-defined]


def make_counts(videos: int, kept: int, crosspairs: int, share: float = 0.4) -> dict[str, Any]:
    return {
        "videos": {"in": videos},
        "subjects": {"kept": kept},
        "references": {"crosspair": crosspairs} if crosspairs else {},
        "config": {"crosspair": {"share": share}},
    }


def test_a_dataset_without_cross_pairs_says_why() -> None:
    assert "only one video" in (explain_missing_crosspairs(make_counts(1, 3, 0)) or "")
    assert "of the 3 kept subjects" in (explain_missing_crosspairs(make_counts(5, 3, 0)) or "")
    for silent in (make_counts(5, 3, 1), make_counts(5, 0, 0), make_counts(1, 3, 0, share=0.0)):
        assert explain_missing_crosspairs(silent) is None
