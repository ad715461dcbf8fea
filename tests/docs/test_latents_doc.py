"""docs/latents.md lists the columns of the index, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from training.latents.store import INDEX_SCHEMA
from training.playground.random_latents import write_latents

DOC = Path(__file__).resolve().parents[2] / "docs" / "latents.md"


def columns(fields: pa.Schema | pa.DataType, at: str = "") -> list[tuple[str, str]]:
    found = []
    for field in fields:
        several = pa.types.is_list(field.type)
        kind = field.type.value_type if several else field.type
        nested = pa.types.is_struct(kind)
        found.append((at + field.name, ("record" if nested else str(kind)) + ("[]" if several else "")))
        if nested:
            found += columns(kind, f"{at}{field.name}[].")
    return found


def test_every_column_is_documented() -> None:
    documented = re.findall(r"^\| `([^`]+)` \| (\S+) \| \S", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    assert documented == columns(INDEX_SCHEMA)


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_latents(tmp_path / "latents", 4)
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert example
    found: dict[str, object] = {}
    exec(example[1], found)
    assert found["sample"].video.shape == (16, 3, 4, 6)  # type: ignore[attr-defined]
