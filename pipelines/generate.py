"""reprise generate: pictures of subjects and a prompt -> a video."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from pipelines.console import EXIT_NOTHING_DONE, ProgressBar, err, handle_errors, mute_library_bars, out
from reprise.errors import InputError, RepriseError
from reprise.settings import load_settings
from training.config import PositionsConfig

_POSITIVE = click.FloatRange(min=0, min_open=True)
_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--model", required=True, help="Diffusers pipeline folder or hub id.")
@click.option("--revision", help="Revision of a hub id.")
@click.option("--prompt", help="What the video shows.")
@click.option("--ref", "references", multiple=True, help="Picture of a subject. Repeat the option for more.")
@click.option("--batch", type=_PATH, help="File with one line per video: prompt@@a.png@@b.png.")
@click.option("--output", required=True, type=_PATH, help="An .mp4; with --batch, a folder.")
@click.option("--height", type=click.IntRange(1), help="Pixels. Default: the model's.")
@click.option("--width", type=click.IntRange(1), help="Pixels. Default: the model's.")
@click.option("--frames", type=int, help="4n + 1. Default: the model's.")
@click.option("--fps", type=_POSITIVE, help="Frames per second of the file. Default: the model's.")
@click.option("--steps", type=click.IntRange(1), help="Steps of the solver. Default: the model's, else 50.")
@click.option(
    "--guidance", type=click.FloatRange(0), help="Scale of the text guidance. Default: the model's, else 6."
)
@click.option(
    "--reference-guidance",
    type=click.FloatRange(0),
    help="Scale of the guidance on the references, separate from the text.",
)
@click.option("--dynamic-guidance", is_flag=True, help="Increase the guidance over the steps (CogVideoX).")
@click.option("--lora", help="File or folder of adapters, from `reprise train` or a release.")
@click.option("--lora-alpha", type=_POSITIVE, help="Alpha of the adapters. Needed if the file stores none.")
@click.option(
    "--flow-shift", default=7.0, show_default=True, type=_POSITIVE, help="Shift of the sampling grid."
)
@click.option("--negative-prompt", default="", help="What the video must not show. Default: empty.")
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=int,
    default=(0,),
    help="Default: 0. Repeat the option for more videos.",
)
@click.option(
    "--positions",
    multiple=True,
    metavar="KEY=VALUE",
    help="Positions of references. Default: those of the model.",
)
@click.option("--pad/--no-pad", default=True, help="Pad references with white to the video's size.")
@click.option("--whole-line", is_flag=True, help="Encode the whole line as the prompt, with its @@ parts.")
@click.option("--device", help="Device of torch. Default: a GPU if there is one, else the CPU.")
@click.option("--dtype", type=click.Choice(["bf16", "fp32"]), help="Default: bf16 on a GPU, else fp32.")
@click.option("--offload", is_flag=True, help="Keep only the active part on the GPU: less memory, slower.")
@click.option("--tile", is_flag=True, help="Decode in tiles: less memory.")
@handle_errors
def generate(
    batch: Path | None,
    prompt: str | None,
    references: tuple[str, ...],
    output: Path,
    seeds: tuple[int, ...],
    whole_line: bool,
    device: str | None,
    offload: bool,
    tile: bool,
    **options: Any,
) -> None:
    """Make a video of the subjects in pictures, or one for each line of a file.

    Example: reprise generate --model kaleido/ --ref dog.png --prompt "a dog on a beach" --output v.mp4
    """
    if (batch is None) == (prompt is None) or (batch is not None and references):
        raise InputError("give either --prompt with --ref, or --batch")
    import torch

    from training.generate import batch as generation

    gpu = (device or ("cuda" if torch.cuda.is_available() else "cpu")) != "cpu"
    settings = generation.GenerationSettings(
        pad_references=options.pop("pad"),
        positions=load_settings(PositionsConfig, None, given)
        if (given := options.pop("positions"))
        else None,
        dtype=options.pop("dtype") or ("bf16" if gpu else "fp32"),
        **options,
    )
    settings = generation.with_model_defaults(settings)
    failed: list[str] = []
    if batch is None:
        requests = generation.make_requests(prompt or "", references, output, seeds)
    else:
        requests, failed = generation.read_requests(batch, output, seeds, whole_line)
        for line in failed:
            err.print(f"[bold red]error[/] {escape(line)}", soft_wrap=True)
    unread = len(failed)
    todo = [one for one in requests if batch is None or not generation.is_generated(one, settings)]
    if len(todo) < len(requests):
        out.print(f"{len(requests) - len(todo)} of {len(requests)} videos were made by an earlier run")
    if todo:
        if distance := generation.describe_size_distance(settings):
            err.print(f"[yellow]note[/] {escape(distance)}", soft_wrap=True)
        size = f"{settings.frames} frames of {settings.height}x{settings.width}, {settings.steps} steps"
        err.print(f"loading {escape(settings.model)} to make {size}", soft_wrap=True)
        mute_library_bars()
        failed += _make_videos(generation.load_pipeline(settings, device, offload, tile), todo, settings)
    if failed and len(failed) >= unread + len(requests):
        sys.exit(EXIT_NOTHING_DONE)


def _make_videos(pipeline: Any, todo: list[Any], settings: Any) -> list[str]:
    """Make the videos; return one message for each that failed."""
    from training.generate import batch as generation

    pipeline.set_progress_bar_config(disable=True)  # diffusers' bar shows one video only
    failed: list[str] = []
    bar = ProgressBar()
    bar.begin("steps", len(todo) * settings.steps)
    for number, request in enumerate(todo, 1):
        count_step = functools.partial(bar.advance, 1, f"video {number} of {len(todo)}")
        try:
            generation.generate_video(pipeline, request, settings, count_step)
        except RepriseError as error:
            failed.append(f"{request.name}: {error}")
            err.print(f"[bold red]error[/] {escape(failed[-1])}", soft_wrap=True)
        else:
            out.print(
                f"{escape(request.name)}, seed {request.seed} -> {escape(str(request.target))}",
                soft_wrap=True,
            )
    bar.end()
    return failed
