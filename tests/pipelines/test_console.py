"""What a command prints when a person can correct the cause."""

from __future__ import annotations

import errno
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pipelines.console import EXIT_USAGE, handle_errors


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
