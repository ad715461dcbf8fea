"""Code that the documents name exists: paths, modules, and functions by module and name."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from curation.config import CurationConfig
from curation.export.config import ExportConfig
from reprise.settings import list_keys
from tests.house.names import REPOSITORY, ROOMS, list_python_files
from training.config import TrainConfig
from training.latents.config import EncodeConfig

DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(REPOSITORY.glob("docs/*.md"))]
ALL_ROOMS = (*ROOMS, "tests", "docs", "ray_configs")
MODULES = list(list_python_files(REPOSITORY, (*ROOMS, "tests")))
KEYS = {
    key.split(".")[0]
    for model in (CurationConfig, ExportConfig, TrainConfig, EncodeConfig)
    for key in list_keys(model)
}
# Keys of Parquet metadata, fields of a row, and files of data: they may begin like a module.
OTHER_NAMES = re.compile(r"reprise\.schema|stop\.\w+|track\.\w+|\w+\.(json|jsonl|yaml|toml|txt|png|parquet)")


@cache
def list_definitions(module: Path) -> set[str]:
    """Return the names that a module defines at its top, and `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            names |= {target.id} if isinstance(target, ast.Name) else set()
        if isinstance(node, ast.ImportFrom) and module.name == "__init__.py":
            names |= {alias.name for alias in node.names}
    return names


def exists(name: str) -> bool:
    """Whether a name of our code exists; True for a name that is none."""
    if OTHER_NAMES.fullmatch(name) or not re.fullmatch(r"\w+(?:[./]\w+)*/?", name):
        return True
    parts = name.rstrip("/").split(".")
    if name.split("/")[0] in ALL_ROOMS and "/" in name.rstrip("/"):
        return (REPOSITORY / name).exists()
    if parts[-1] == "py":
        return any(module.as_posix().endswith(f"/{name}") for module in MODULES)
    if len(parts) == 1:
        return True
    if parts[0] in ROOMS:
        for length in range(len(parts), 0, -1):
            path = REPOSITORY.joinpath(*parts[:length])
            for module in (path.with_suffix(".py"), path / "__init__.py"):
                if module.is_file():
                    return length == len(parts) or ".".join(parts[length:]) in list_definitions(module)
        return False
    named = [module for module in MODULES if module.stem == parts[0]]
    return (
        not named or parts[0] in KEYS or any(".".join(parts[1:]) in list_definitions(each) for each in named)
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_code_that_a_document_names_exists(document: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    missing = [name for name in re.findall(r"`([^`\s]+?)(?:\(\))?`", prose) if not exists(name)]
    assert not missing, f"{document.name} names code that does not exist"


def test_a_name_that_does_not_exist_is_found() -> None:
    assert not any(
        exists(name)
        for name in (
            "curation/nowhere.py",
            "reprise.digest.no_such",
            "digest.no_such",
            "nowhere.py",
            "reprise.no",
        )
    )
    assert all(
        exists(name) for name in ("curation/rows/", "reprise.digest.compute_digest", "digest.py", "run.name")
    )
