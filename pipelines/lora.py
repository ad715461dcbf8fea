"""reprise lora: check and convert adapter files, merge them into a model and remove them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from pipelines.console import handle_errors, out

_PATH = click.Path(path_type=Path)
_FILE = click.argument("file", metavar="LORA", type=_PATH)
_TARGET = click.argument("target", metavar="OUT", type=_PATH)
_MODEL = click.option("--model", required=True, help="Diffusers folder or hub id of the adapters' model.")
_REVISION = click.option("--revision", help="Revision of a hub id.")
_ALPHA = click.option(
    "--alpha",
    type=click.FloatRange(min=0, min_open=True),
    help="Alpha of the adapters. Needed if the file stores none. Released proxy replay file (rank 128): 64.",
)
_DTYPE = click.option(
    "--dtype",
    type=click.Choice(["bf16", "fp32"]),
    default="bf16",
    show_default=True,
    help="Data type of the weights in OUT.",
)


def _add_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command that writes a model with its arguments and options."""
    # Decorators apply from the innermost outwards, so the last one is the first argument.
    for option in (_DTYPE, _ALPHA, _REVISION, _MODEL, _TARGET, _FILE):
        command = option(command)
    return command


@click.group()
def lora() -> None:
    """Adapter files: a .safetensors file in diffusers' or ComfyUI's format, or a folder that holds one."""


@lora.command()
@_FILE
@_MODEL
@_REVISION
@handle_errors
def check(file: Path, model: str, revision: str | None) -> None:
    """Print the contents of LORA, and check that it fits the model. No weights of the model are read."""
    from training.lora.export import check_lora

    found = check_lora(file, model, revision)
    alpha = "not stored: give --alpha" if found.alpha is None else f"{found.alpha:g}"
    scope = ", only norms of references" if found.reference_only else ""
    out.print(
        f"{escape(str(found.path))}: rank {found.rank}, alpha {alpha}, {len(found.modules)} modules{scope}; "
        "fits",
        soft_wrap=True,
    )


@lora.command()
@_FILE
@_TARGET
@click.option("--to", type=click.Choice(["diffusers", "comfyui"]), required=True, help="Format of the keys.")
@_MODEL
@_REVISION
@_ALPHA
@handle_errors
def export(file: Path, target: Path, to: Any, model: str, revision: str | None, alpha: float | None) -> None:
    """Write LORA to OUT, a .safetensors file, in another format. The file stores the alpha."""
    from training.lora.export import export_lora

    out.print(f"{to} -> {escape(str(export_lora(file, target, to, model, revision, alpha)))}", soft_wrap=True)


@lora.command()
@_add_model_options
@handle_errors
def merge(file: Path, target: Path, **options: Any) -> None:
    """Add LORA to the weights of the model. Any diffusers program loads OUT, without adapters."""
    from training.lora.merge import write_merged_model

    out.print(f"merged -> {escape(str(write_merged_model(file, target, **options)))}", soft_wrap=True)


@lora.command()
@_add_model_options
@handle_errors
def unmerge(file: Path, target: Path, **options: Any) -> None:
    """Remove LORA from a model that `merge` made. OUT has the earlier weights, up to rounding."""
    from training.lora.merge import write_merged_model

    out.print(
        f"unmerged -> {escape(str(write_merged_model(file, target, sign=-1, **options)))}", soft_wrap=True
    )


if __name__ == "__main__":
    lora()
