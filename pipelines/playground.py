"""reprise playground: render drawn videos with known truth, and train small models on them."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from pipelines.console import err, handle_errors, out
from reprise.errors import RepriseError


@click.group()
def playground() -> None:
    """Render the playground, or train its models."""


@playground.command()
@click.option("--output", default="playground/videos", show_default=True, help="Folder of the videos.")
@click.option("--videos", default=12, show_default=True, help="Number of videos.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same videos.")
@click.option(
    "--size", default="256x192", show_default=True, metavar="WxH", help="Size of a frame in pixels."
)
@click.option("--plain", is_flag=True, help="One object on a plain background, to train a small video model.")
@click.option("--pairs", type=int, help="Instead of videos: this number of pairs of pictures.")
@handle_errors
def render(output: str, videos: int, seed: int, size: str, plain: bool, pairs: int | None) -> None:
    """Write videos with captions, and their truth in a folder beside them."""
    if pairs is not None:
        _render_pairs(output, pairs, seed)
        return
    if plain:
        _render_plain(output, videos, seed)
        return
    from curation.playground.render import TAXONOMY
    from curation.playground.render import render_playground as write

    width, _, height = size.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise RepriseError(f"--size {size}: write WIDTHxHEIGHT, for example 256x192")
    write(output, videos=videos, seed=seed, width=int(width), height=int(height), on_progress=err.print)
    out.print(f"videos   {escape(output)}\ntruth    {escape(str(Path(output) / 'truth'))}", soft_wrap=True)
    out.print(f"taxonomy {escape(str(TAXONOMY))}  (set match.taxonomy to it)", soft_wrap=True)


def _render_plain(output: str, videos: int, seed: int) -> None:
    from curation.playground.plain import CONFIG, render_plain_videos

    render_plain_videos(output, videos=videos, seed=seed, on_progress=err.print)
    out.print(f"videos   {escape(output)}\ntruth    {escape(str(Path(output) / 'truth'))}", soft_wrap=True)
    out.print(f"config   {escape(str(CONFIG))}  (for reprise curate --config)", soft_wrap=True)


def _render_pairs(output: str, pairs: int, seed: int) -> None:
    from curation.playground.plain import render_pairs

    listed = render_pairs(output, pairs=pairs, seed=seed, on_progress=err.print)
    out.print(f"pairs    {escape(str(listed))}  (for reprise encode --pairs)", soft_wrap=True)


@playground.command()
@click.option("--output", default="playground/model", show_default=True, help="A diffusers folder.")
@click.option("--family", type=click.Choice(["wan", "cogvideox"]), default="wan", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the weights.")
@handle_errors
def model(output: str, family: str, seed: int) -> None:
    """Write a small untrained video model with lossless latents, to train on plain videos."""
    from training.playground.model import write_model

    write_model(Path(output), family=family, seed=seed)
    out.print(f"model    {escape(output)}  (for reprise encode --model, and model.path)", soft_wrap=True)


@playground.command()
@click.argument("role", required=False)
@click.option("--output", help="Folder of the checkpoint; by default playground/weights/ROLE.")
@click.option("--minutes", default=60.0, show_default=True, help="Stop after this time.")
@click.option("--steps", type=int, help="Stop after this number of steps; by default what the role needs.")
@click.option("--seed", default=0, show_default=True, help="Seed of the weights and of every scene.")
@click.option("--threads", default=2, show_default=True, help="Maximum number of CPU threads.")
@handle_errors
def train(
    role: str | None, output: str | None, minutes: float, steps: int | None, seed: int, threads: int
) -> None:
    """Train the model of ROLE, or of every role, on scenes made during training. Run again to resume."""
    from curation.playground.train_models.roles import TRAINERS
    from curation.playground.train_models.roles import train_role as run

    if minutes <= 0 or threads < 1 or (steps is not None and steps < 1):
        raise RepriseError("--minutes, --steps and --threads must be positive")
    for each in [role] if role else TRAINERS:
        folder = Path(output or "playground/weights")
        folder = folder if role and output else folder / each
        reached = run(each, folder, seed=seed, minutes=minutes, steps=steps, threads=threads)
        summary = ", ".join(f"{name} {value:.3f}" for name, value in reached.items())
        out.print(f"{each}: {summary}; saved in {escape(str(folder))}", soft_wrap=True)


if __name__ == "__main__":
    playground()
