"""reprise config: a config file with every key, its default, its meaning and where its number comes from."""

from __future__ import annotations

from collections.abc import Iterator

import click
import yaml
from pydantic import BaseModel

from curation.config import CurationConfig


@click.command()
def main() -> None:
    """Print a config with every key, ready to edit."""
    click.echo("\n".join(reference(CurationConfig())))


def reference(model: BaseModel, indent: str = "") -> Iterator[str]:
    """YAML lines of a config, each value with its description as a comment."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            words = (type(value).__doc__ or "").strip().split("\n")[0]
            yield f"{indent}{name}:" + (f"  # {words}" if words else "")
            yield from reference(value, indent + "  ")
        else:
            text = (
                yaml.safe_dump(value, default_flow_style=True, width=10_000)
                .removesuffix("\n")
                .removesuffix("\n...")
            )
            yield f"{indent}{name}: {text}" + (f"  # {field.description}" if field.description else "")


if __name__ == "__main__":
    main()
