"""What the files around the code promise: one version, typed packages, the same commands everywhere."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from tests.house.names import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))


def list_make_targets(text: str) -> list[str]:
    return re.findall(r"\bmake ([a-z][\w-]*)", text)


@pytest.mark.parametrize("package", PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
def test_a_package_is_marked_as_typed(package: str) -> None:
    assert (REPOSITORY / package / "py.typed").is_file()


def test_the_version_is_in_one_place() -> None:
    version = PROJECT["project"]["version"]
    for folder in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        for path in (REPOSITORY / folder).rglob("*.py"):
            assert f'"{version}"' not in path.read_text(encoding="utf-8"), path
    assert "version:" not in (REPOSITORY / "CITATION.cff").read_text().replace("cff-version:", "")


def test_the_changelog_lists_unreleased_and_released_changes() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", heading) for heading in headings[1:])


@pytest.mark.parametrize("file", [".ci/run", ".github/workflows/ci.yml"])
def test_ci_runs_the_targets_that_a_developer_runs(file: str) -> None:
    targets = list_make_targets((REPOSITORY / file).read_text(encoding="utf-8"))
    assert {"check", "test", "docs"} <= set(targets) <= TARGETS


def test_hooks_need_no_network() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    assert {repository["repo"] for repository in hooks["repos"]} == {"local"}
    assert {hook["id"] for hook in hooks["repos"][0]["hooks"]} == {"ruff-check", "ruff-format", "mypy"}


def test_every_marker_that_leaves_tests_out_is_declared() -> None:
    declared = {marker.split(":")[0] for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    fast = re.search(r"^FAST\s*:= (.*)$", MAKEFILE, re.MULTILINE)
    assert fast and set(re.findall(r"not (\w+)", fast[1])) <= declared
