"""Make the pages of the site that are written nowhere by hand: a hook of MkDocs, see mkdocs.yml.

Reference pages come from the pydantic models, the schema of the dataset, the commands and the docstrings. The
README and the other documents at the root of the repository become pages, too; their links are adapted.
"""

from __future__ import annotations

import importlib
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# Documents outside docs/ -> their pages.
DOCUMENTS = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "ray_configs/README.md": "clusters.md",
}
# Modules that code outside Reprise calls, by page. Modules without a docstring are left out by mkdocstrings.
PYTHON_PAGES = {
    "reprise": ("What curation and training share", ["reprise"]),
    "curation": (
        "Curation",
        [
            "curation.rows",
            "curation.models.roles",
            "curation.stages",
            "curation.filters",
            "curation.taxonomy",
            "curation.dataset",
        ],
    ),
    "training": (
        "Training",
        [
            "training.positions",
            "training.objectives",
            "training.schedules",
            "training.tasks",
            "training.models",
            "training.data",
            "training.callbacks",
            "training.generate",
            "training.trainer",
        ],
    ),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and leave programs out of the site."""
    for file in list(files):
        if file.src_uri.endswith(".py"):
            files.remove(file)
    pages = {page: adapt_links(document, page) for document, page in DOCUMENTS.items()}
    pages["reference/columns.md"] = render_columns()
    pages["reference/commands.md"] = render_commands()
    for name, (title, modules) in PYTHON_PAGES.items():
        pages[f"reference/python-{name}.md"] = render_modules(title, modules)
    for name, model in list_configs().items():
        pages[f"reference/{name}.md"] = render_config(name, model)
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links that leave docs/ to the pages of the documents there."""
    if page.file.src_uri in DOCUMENTS.values():
        return markdown
    return replace_links(markdown, posixpath.join("docs", page.file.src_uri), page.file.src_uri)


def adapt_links(document: str, page: str) -> str:
    """Return a document of the repository with links that work on its page."""
    return replace_links((ROOT / document).read_text(encoding="utf-8"), document, page)


def replace_links(text: str, document: str, page: str) -> str:
    """Rewrite the links of a document, which lies at one place in the repository and at another on the site.

    Links to files that are no pages become plain text.
    """

    def replace(match: re.Match[str]) -> str:
        label, target, anchor = match.groups()
        place = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
        if place in DOCUMENTS:
            found = DOCUMENTS[place]
        elif place.startswith("docs/"):
            found = place.removeprefix("docs/")
        else:
            return label[1:-1] if label.startswith("[") else match[0]
        return f"{label}({posixpath.relpath(found, posixpath.dirname(page) or '.')}{anchor or ''})"

    return re.sub(r"(!?\[[^\]]*\])\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)", replace, text)


def list_configs() -> dict[str, type[BaseModel]]:
    """Return the configs that `reprise config` prints, by name."""
    return dict(importlib.import_module("pipelines.config").CONFIGS)


def render_config(name: str, model: type[BaseModel]) -> str:
    """Return the page of a config: all keys, with defaults and meanings, as `reprise config` prints them."""
    lines = importlib.import_module("pipelines.config").render_reference(model())
    return "\n".join(
        [
            f"# Config of `reprise {name}`",
            "",
            f"Every key with its default and its meaning, as `reprise config {name}` prints it.",
            "An override on the command line is `section.key=value`.",
            "",
            "```yaml",
            *lines,
            "```",
            "",
        ]
    )


def render_columns() -> str:
    """Return the page of the dataset's columns, from the records that the Arrow schemas are derived from."""
    schema = importlib.import_module("curation.rows.schema")
    describe = importlib.import_module("curation.rows.columns").describe_columns
    lines = ["# Columns of the dataset", "", "See [the dataset](../dataset.md) for how to read them.", ""]
    for title, record in (("Clips", schema.ClipRow), ("Videos", schema.VideoRow)):
        lines += [f"## {title}", "", "| column | Arrow type | meaning |", "|---|---|---|"]
        for column in describe(record):
            meaning = column.meaning.replace("|", "\\|")
            lines.append(f"| `{column.name}` | {column.type} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def render_commands() -> str:
    """Return the page of the commands: what `--help` prints for each."""
    commands = importlib.import_module("pipelines.cli").COMMANDS
    lines = ["# Commands", "", "Each also runs as `python -m pipelines.NAME`, for `ray job submit`.", ""]
    for name, (module, attribute, _) in commands.items():
        command = getattr(importlib.import_module(module), attribute)
        lines += list_help(command, name, None)
    return "\n".join(lines)


def list_help(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    """Yield the help of a command and of those below it."""
    parent = parent or click.Context(click.Group("reprise"), info_name="reprise")
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
    level = "##" if parent.parent is None else "###"
    yield from (
        f"{level} {context.command_path}",
        "",
        "```text",
        command.get_help(context).rstrip(),
        "```",
        "",
    )
    if isinstance(command, click.Group):
        for below, inner in command.commands.items():
            yield from list_help(inner, below, context)


def render_modules(title: str, modules: list[str]) -> str:
    """Return a page with the docstrings of modules and of the files in them."""
    lines = [f"# {title}", ""]
    for module in modules:
        for name in list_modules(module):
            lines += [f"::: {name}", ""]
    return "\n".join(lines)


def list_modules(module: str) -> Iterator[str]:
    """Yield a module, or the files of a package that have code, two levels deep at most."""
    path = ROOT / module.replace(".", "/")
    if not path.is_dir():
        yield module
        return
    for file in sorted(path.rglob("*.py")):
        parts = file.relative_to(path).with_suffix("").parts
        if len(parts) <= 2 and not any(part.startswith("_") and part != "__init__" for part in parts):
            text = file.read_text(encoding="utf-8")
            if re.search(r"^(def|class|async def) [a-zA-Z]", text, re.MULTILINE):
                yield ".".join((module, *(part for part in parts if part != "__init__")))
