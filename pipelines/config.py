"""reprise config: a config file with every key, its default, its meaning and the source of its number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from curation.config import CurationConfig
from curation.export.config import ExportConfig
from reprise.settings import list_entry_sections
from training.config import TrainConfig
from training.latents.config import EncodeConfig

CONFIGS: dict[str, type[BaseModel]] = {
    "curate": CurationConfig,
    "encode": EncodeConfig,
    "train": TrainConfig,
    "export": ExportConfig,
}


@click.command()
@click.argument("what", type=click.Choice(list(CONFIGS)), default="curate")
def main(what: str) -> None:
    """Print a config of `reprise curate`, `encode`, `train` or `export` with every key, ready to edit."""
    click.echo("\n".join(render_reference(CONFIGS[what]())))


def render_reference(model: BaseModel, indent: str = "") -> Iterator[str]:
    """Yield the YAML lines of a config. Each value has its description as a comment."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:" + _render_comment(value)
            yield from render_reference(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_dump_value(value)}" + (
                f"  # {field.description}" if field.description else ""
            )
            for kind in list_entry_sections(field.annotation):
                yield from _render_list_entry(kind, f"{indent}  ")


def _render_list_entry(kind: type[BaseModel], indent: str) -> Iterator[str]:
    """Yield the keys of a list entry as comments, because a list has no entries by default."""
    tag = kind.model_fields["kind"].default
    yield f"{indent}# - kind: {tag}{_render_comment(kind)}"
    for name, field in kind.model_fields.items():
        if name == "kind":
            continue
        default = field.get_default(call_default_factory=True)
        comment = f"  # {field.description}" if field.description else ""
        if isinstance(default, BaseModel):
            yield f"{indent}#   {name}:" + _render_comment(default)
            yield from (f"{indent}#   {line}" for line in render_reference(default, "  "))
        else:
            yield (
                f"{indent}#   {name}:"
                + ("" if default is PydanticUndefined else f" {_dump_value(default)}")
                + comment
            )


def _render_comment(section: BaseModel | type[BaseModel]) -> str:
    summary = (section.__doc__ or "").strip().split("\n")[0]
    return f"  # {summary}" if summary else ""


def _dump_value(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    )


if __name__ == "__main__":
    main()
