"""The card of a published dataset: what is in it, under which licences, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from curation.export.sample import SPLITS
from curation.export.target import FinishedExport

_COLUMNS = (
    ("clip_id", "id of the clip, a hash of its source and its place there"),
    ("video_id", "id of the source video"),
    ("video", "the clip, H.264 in MP4"),
    ("caption", "one sentence or more"),
    ("license", "as the list of videos stated it; null: it stated none"),
    ("extra", "JSON: further columns of the list of videos"),
    ("fps, frames, width, height", "of the clip"),
    ("subjects", "category, phrase, and the box (xyxy, px) and mask (COCO RLE) in one frame of the source"),
    ("references", "pictures of the subjects; `subject` is a place in `subjects`, `variant` how it was made"),
)


def write_card(export: FinishedExport) -> None:
    """Write `README.md`: metadata that the Hub reads, then counts, columns, thresholds and the funnel."""
    licenses: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    variants: Counter[str] = Counter()
    for split in SPLITS:
        for record in export.read_records(split):
            licenses[record["license"] or "unknown"] += 1
            categories.update(record["categories"])
            variants.update(record["variants"])
    metadata = {
        "license": next(iter(licenses)).lower()
        if len(licenses) == 1 and "unknown" not in licenses
        else "other",
        "task_categories": ["text-to-video"],
        "tags": ["subject-to-video", "video"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"data/{split}-*.parquet"} for split in export.splits
                ],
            }
        ],
    }
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n",
        "# Clips with subjects and reference pictures\n",
        "Curated with Reprise. Each row is a clip with a caption, the subjects that the caption names, and\n"
        "reference pictures of them.\n",
        "## Counts\n",
        _format_table(("split", "clips"), export.counts.items()),
        _format_table(("licence of the source", "clips"), licenses.most_common()),
        _format_table(("category", "subjects"), categories.most_common(30)),
        _format_table(("variant", "pictures"), variants.most_common()),
        "## Columns\n",
        _format_table(("column", "meaning"), ((f"`{name}`", text) for name, text in _COLUMNS)),
        "## How it was filtered\n",
        _format_table(("stage", "unit", "in", "out", "lost to"), _list_funnel(export.manifest)),
        _format_table(
            ("threshold", "score", "bound", "value", "applies to"), _list_thresholds(export.manifest)
        ),
    ]
    export.writer.write_text("README.md", "\n".join(parts))


def _list_funnel(manifest: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for step in manifest.get("funnel") or ():
        reasons = ", ".join(f"{count} {reason}" for reason, count in step["reasons"].items())
        yield step["stage"], step["unit"], step["in"], step["out"], reasons


def _list_thresholds(manifest: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for rule in manifest.get("thresholds") or ():
        yield rule["name"], rule["score"], rule["bound"], rule["value"], rule["applies_to"]


def _format_table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; pipes in cells are escaped."""
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )
