"""reprise convert: convert a model's weights to another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from pipelines.console import err, handle_errors, out


@click.group()
def convert() -> None:
    """Convert weights of released models to the layout of Reprise and back."""


@convert.command("kaleido")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Choice(["sat", "wan", "diffusers"]),
    help="Layout of OUT. Default: diffusers, or sat if IN has the layout of diffusers.",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    help="Diffusers folder of Wan 2.1: OUT becomes a whole pipeline with its VAE and text encoder.",
)
@click.option(
    "--heads", type=click.IntRange(1), help="Number of attention heads. Needed if a head is not 128 wide."
)
@handle_errors
def convert_kaleido(source: Path, target: Path, to: Any, base: Path | None, heads: int | None) -> None:
    """Convert Kaleido or Wan 2.1 weights between the SAT layout, Wan's original and diffusers'.

    IN is a .pt or .safetensors file, a folder with `latest`, or a folder with shards. Its layout is found
    from its keys. OUT is a new folder. Values are copied bit for bit.

    Example: reprise convert kaleido Kaleido-14B/ kaleido-diffusers/ --base Wan2.1-T2V-14B-Diffusers/
    """
    from training.convert.files import convert_checkpoint

    report = convert_checkpoint(source, target, to, heads=heads, base=base)
    out.print(
        f"{report.source} -> {report.to}: {report.blocks} blocks, {report.parameters / 1e9:.3g}B parameters "
        f"({report.dtype}) -> {escape(str(target))}",
        soft_wrap=True,
    )
    if report.unknown:
        kinds = ", ".join(f"{escape(kind)}.* ({count})" for kind, count in report.count_unknown_kinds())
        err.print(
            f"skipped {len(report.unknown)} tensors that are not part of the transformer: {kinds}",
            soft_wrap=True,
        )
    if report.to == "diffusers" and base is None:
        out.print(
            "OUT holds only a transformer. For a whole pipeline, add --base FOLDER (a diffusers folder of "
            "Wan 2.1)",
            soft_wrap=True,
        )
