"""Damaged files in datasets, latents, runs and models: every command that reads them says so in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from tests.curation.dataset.fake_dataset import write_dataset

Damage = Callable[[Path], object]


def flip_footer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(max(0, len(data) - 400), max(0, len(data) - 8), 3):
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def flip_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(each ^ 0xFF for each in data[middle : middle + 64])
    path.write_bytes(bytes(data))


def change_json(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


FILES: dict[str, Damage] = {
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "footer": flip_footer,
    "middle": flip_middle,
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "random": lambda path: path.write_bytes(bytes(range(256)) * 4),
}
TABLES: dict[str, Damage] = {
    "columns": lambda path: pq.write_table(pa.table({"a": [1, 2]}), path),
    "types": lambda path: pq.write_table(
        pa.table({name: [1] * 3 for name in pq.read_schema(path).names}), path
    ),
    "no rows": lambda path: pq.write_table(pq.read_table(path).slice(0, 0), path),
}
JSONS: dict[str, Damage] = {
    "not an object": lambda path: path.write_text("[1, 2]"),
    "null": lambda path: path.write_text("null"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "no keys": lambda path: path.write_text("{}"),
    "all null": lambda path: change_json(path, lambda value: value.update(dict.fromkeys(value))),
    "all text": lambda path: change_json(path, lambda value: value.update(dict.fromkeys(value, "x"))),
    "all lists": lambda path: change_json(path, lambda value: value.update({key: [1] for key in value})),
    "all numbers": lambda path: change_json(path, lambda value: value.update(dict.fromkeys(value, 10**400))),
    "latin": lambda path: path.write_bytes('{"é": 1}'.encode("latin-1")),
}
SHARDS = {
    "shards null": lambda path: change_json(path, lambda value: value.update(shards=None)),
    "shards of numbers": lambda path: change_json(path, lambda value: value.update(shards=[1])),
    "shards without paths": lambda path: change_json(path, lambda value: value.update(shards=[{}])),
    "shards elsewhere": lambda path: change_json(
        path, lambda value: value.update(shards=[{"path": "../../x", "rows": -1, "bytes": "many"}])
    ),
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def assert_explained(result: Result) -> None:
    """No traceback reaches the user, and a failure has a message."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"{result.exception!r} reached the user") from result.exception
    assert "Traceback" not in result.output
    assert result.exit_code == 0 or result.output.strip()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset") / "O", 10, videos=1, rows_per_shard=6).root


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "report": lambda root: ["report", "--dataset", str(root)],
    "refilter": lambda root: ["refilter", "--dataset", str(root), "--dry-run", "filter.sharpness_min=1"],
    "audit": lambda root: ["audit", "--dataset", str(root), "--summary", "--n", "4"],
    "export": lambda root: [
        *("export", "--dataset", str(root), "--to", "webdataset"),
        *("--output", f"{root}-export", "--dry-run"),
    ],
    "verify": lambda root: ["verify", str(root)],
    "stage": lambda root: ["stage", "filter", "--in", f"{root}/data", "--out", f"{root}-stage.parquet"],
}


def list_damage() -> Iterator[tuple[str, str]]:
    for name in (*FILES, *TABLES):
        yield "data/clips-00000.parquet", name
    for name in (*FILES, *JSONS, *SHARDS):
        yield "manifest.json", name


@pytest.mark.parametrize(("file", "name"), list(list_damage()))
def test_damage_of_a_dataset_reaches_no_user_as_a_traceback(
    dataset: Path, tmp_path: Path, file: str, name: str
) -> None:
    for command, arguments in COMMANDS.items():
        root = tmp_path / command / "O"
        shutil.copytree(dataset, root)
        {**FILES, **TABLES, **JSONS, **SHARDS}[name](root / file)
        result = run(*arguments(root))
        assert_explained(result)
