from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house.imports import (
    ALLOWED_BREAKS,
    ALLOWED_CIRCLES,
    LAYERS,
    Import,
    find_breaks,
    find_circles,
    find_loops,
    find_room,
    list_imports,
    read_modules,
)


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    return read_modules()


@pytest.fixture(scope="module")
def imports(modules: dict[str, ast.Module]) -> list[Import]:
    return list_imports(modules)


def test_no_import_breaks_the_layers(imports: list[Import]) -> None:
    new = find_breaks(imports).keys() - ALLOWED_BREAKS
    assert not new, f"these files import what their room must not (tests/house/imports.py): {sorted(new)}"


def test_breaks_that_are_gone_leave_the_list(imports: list[Import]) -> None:
    gone = ALLOWED_BREAKS - find_breaks(imports).keys()
    assert not gone, f"remove these from ALLOWED_BREAKS in tests/house/imports.py: {sorted(gone)}"


def test_no_files_import_each_other(imports: list[Import]) -> None:
    new = find_circles(imports) - ALLOWED_CIRCLES
    assert not new, f"these files import each other: {sorted(new)}"


def test_circles_that_are_gone_leave_the_list(imports: list[Import]) -> None:
    gone = ALLOWED_CIRCLES - find_circles(imports)
    assert not gone, f"remove these from ALLOWED_CIRCLES in tests/house/imports.py: {sorted(gone)}"


def test_every_module_with_code_is_in_a_room_of_the_table(modules: dict[str, ast.Module]) -> None:
    homeless = [name for name, tree in modules.items() if has_code(tree) and find_room(name) is None]
    assert not homeless, f"add to LAYERS what these may import: {homeless}"


def test_every_room_of_the_table_may_only_import_what_is_below_it() -> None:
    graph = {room: {find_room(allowed) or allowed for allowed in LAYERS[room]} - {room} for room in LAYERS}
    assert not find_loops(graph)


def has_code(tree: ast.Module) -> bool:
    return any(not isinstance(node, ast.Expr) for node in tree.body)


def write_tree(root: Path, **files: str) -> list[Import]:
    for name, text in files.items():
        path = root / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list_imports(read_modules(root))


def test_a_stage_that_imports_the_runner_is_found(tmp_path: Path) -> None:
    found = write_tree(tmp_path, **{"curation.stages.x": "def f():\n    from curation.runner import graph\n"})
    assert find_breaks(found) == {("curation.stages.x", "curation.runner"): [2]}


def test_imports_for_types_count_for_layers_but_not_for_circles(tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from curation.video import cut\n"
    found = write_tree(
        tmp_path, **{"curation.rows.ids": text, "curation.video.cut": "import curation.rows.ids\n"}
    )
    assert find_breaks(found) == {("curation.rows.ids", "curation.video"): [3]}
    assert find_circles(found) == set()


def test_files_that_import_each_other_through_a_third_are_found(tmp_path: Path) -> None:
    found = write_tree(
        tmp_path,
        **{
            "reprise.a": "from reprise import b\n",
            "reprise.b": "def f():\n    import reprise.c\n",
            "reprise.c": "from reprise.a import x\n",
        },
    )
    assert find_circles(found) == {("reprise.a", "reprise.b", "reprise.c")}


def test_only_the_runner_of_curation_knows_ray(tmp_path: Path) -> None:
    found = write_tree(
        tmp_path, **{"curation.dataset.x": "import ray.data\n", "curation.runner.y": "import ray\n"}
    )
    assert find_breaks(found) == {("curation.dataset.x", "ray"): [1]}


def test_half_a_room_may_be_allowed(tmp_path: Path) -> None:
    text = "from training.tasks import kaleido, task\n"
    files = {"training.loop.x": text, "training.tasks.task": "", "training.tasks.kaleido": ""}
    breaks = find_breaks(write_tree(tmp_path, **files))
    assert list(breaks) == [("training.loop.x", "training.tasks")]
