"""The documents list the columns and thresholds of the code, and their examples run.

`python -m tests.docs.test_curation_docs` prints the tables to paste.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curation.config import load_config
from curation.rows import schema
from curation.rows.columns import describe_columns
from curation.rows.schema import CLIPS, ClipRow, EncodedImage
from curation.rows.tables import build_table
from curation.rows.thresholds import Thresholds
from reprise.storage import Storage
from tests.curation.runner.test_refilter import finish, make_undecided_rows, write

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"


def columns_table() -> list[str]:
    """One line per column, as it is declared; a picture is explained above the table."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for each in describe_columns(ClipRow, opaque=[EncodedImage]):
        meaning = each.meaning.replace("|", "\\|")
        lines.append(f"| `{each.name}` | {each.type} | {meaning} |")
    return lines


def thresholds_table() -> list[str]:
    lines = ["| threshold | default | source |", "|---|---|---|"]
    for name, field in Thresholds.model_fields.items():
        default = getattr(Thresholds(), name)
        shown = "off" if default is None else f"{default:g}"
        lines.append(f"| `{name}` | {shown} | {field.description} |")
    return lines


def blocks(document: str, language: str) -> list[str]:
    text = (DOCS / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_table_of_columns_is_that_of_the_schema() -> None:
    assert "\n".join(columns_table()) in (DOCS / "dataset.md").read_text(encoding="utf-8")


def test_every_column_has_a_meaning() -> None:
    assert [line for line in columns_table() if line.endswith("|  |")] == []


def test_the_table_of_thresholds_is_that_of_the_code() -> None:
    assert "\n".join(thresholds_table()) in (DOCS / "filters.md").read_text(encoding="utf-8")


def test_every_score_is_explained() -> None:
    text = (DOCS / "filters.md").read_text(encoding="utf-8")
    for score in schema.Scores.__annotations__:
        assert f"| `{score}` |" in text, score


def test_links_between_documents_lead_somewhere() -> None:
    for name in ("dataset.md", "filters.md", "config.md", "stages.md", "models.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (DOCS / name).read_text(encoding="utf-8")):
            assert (DOCS / target).exists(), (name, target)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished `dataset/` and a table `matched.parquet` in it."""
    folder = tmp_path_factory.mktemp("docs")
    config = load_config()
    write(folder / "dataset", finish(make_undecided_rows(), config), config)
    rows: list[Any] = [{**row, "status": "open", "stop": None} for row in make_undecided_rows()]
    Storage.from_uri(folder).write_parquet("matched.parquet", [build_table(rows, CLIPS)], CLIPS)
    return folder


def run(place: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=place,
        env={
            "PYTHONPATH": f"{place}:{REPOSITORY}",
            "PATH": "/usr/bin:/bin",
            "HF_HUB_OFFLINE": "1",
            "HOME": str(place),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_queries_run_on_a_dataset(place: Path) -> None:
    examples = blocks("dataset.md", "python")
    assert len(examples) == 7
    output = run(place, "-c", "\n".join(examples))
    assert "ball" in output
    assert "sharpness_min" in output, "a near miss"
    assert list((place / "pictures").glob("*crop0.jpg"))


def test_the_example_stage_and_backend_run(place: Path) -> None:
    stage, backend = blocks("stages.md", "python")
    (place / "my_stages.py").write_text(stage)
    (place / "my_models.py").write_text(backend)
    table, out = str(place / "matched.parquet"), str(place / "out.parquet")
    output = run(place, "-m", "pipelines.stage", "my_stages:DropStills", "--in", table, "--out", out)
    assert "rejected" in output
    chosen = "models.captioner=my_models:Brightness"
    output = run(place, "-m", "pipelines.stage", "caption", "--in", table, "--out", out, chosen)
    rows = Storage.from_uri(place).read_table("out.parquet", ["caption", "caption_source"]).to_pylist()
    assert {"caption": "A bright scene.", "caption_source": "brightness@1"} in rows


if __name__ == "__main__":
    print("\n".join([*columns_table(), "", *thresholds_table()]))
