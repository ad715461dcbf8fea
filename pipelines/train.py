"""reprise train: a config and encoded latents -> a trained model, on this machine or a Ray cluster."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from pipelines.console import EXIT_INTERRUPTED, EXIT_NOTHING_DONE, err, handle_errors, out, print_config

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.cost.estimate import Estimate
    from training.loop.run_folder import RunFolder

RECIPES = Path(__file__).resolve().parents[1] / "training" / "recipes"


def list_recipes() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


@click.command()
@click.option("--config", "path", type=click.Path(), help="YAML; `reprise config train` prints every key.")
@click.option("--recipe", type=click.Choice(list_recipes()), help="A config that ships with Reprise.")
@click.option("--dry-run", is_flag=True, help="Print config, layout, tokens, FLOPs and memory, and stop.")
@click.option(
    "--gpu-memory", metavar="SIZE", help="Memory of each GPU, such as 80GB. Default: of this machine's GPU."
)
@click.option(
    "--size", metavar="FxHxW", help="With --dry-run and no latents: size of the videos, frames and pixels."
)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@handle_errors
def main(
    path: str | None,
    recipe: str | None,
    dry_run: bool,
    gpu_memory: str | None,
    size: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Train a model. To resume after an interruption, run it again with the same run.name and run.output.

    KEY=VALUE overrides the config, for example model.path=MODEL tasks.0.latents=LATENTS run.workers=8.
    """
    config = resolve_config(path, recipe, overrides)
    gpu_bytes = parse_memory(gpu_memory) if gpu_memory else None
    frames = parse_size(size) if size else None
    if frames and not dry_run:
        raise click.UsageError("--size goes with --dry-run: a run trains on the sizes of its latents")
    check_trainable(config)
    if dry_run:
        print_training_plan(config, gpu_bytes, frames)
    elif not start_training(config, gpu_bytes):
        sys.exit(EXIT_NOTHING_DONE)


def resolve_config(path: str | None, recipe: str | None, overrides: tuple[str, ...]) -> TrainConfig:
    """Load the config of a file or a recipe, with overrides.

    Raises:
        RepriseError: both are given, or the config cannot be read.
    """
    from reprise.errors import RepriseError
    from reprise.settings import load_settings
    from training.config import TrainConfig

    if path and recipe:
        raise RepriseError("--config and --recipe: give one of them")
    return load_settings(TrainConfig, RECIPES / f"{recipe}.yaml" if recipe else path, overrides)


def check_trainable(config: TrainConfig) -> None:
    """Check a config before workers start.

    Raises:
        RepriseError: there is no task or no model, or a package is missing.
    """
    from reprise.errors import RepriseError
    from training.callbacks.wandb import require_wandb

    if not config.tasks:
        raise RepriseError(
            f"no task to train: give --recipe ({', '.join(list_recipes())}), or a config with `tasks`"
        )
    if not config.model.path:
        raise RepriseError("model.path is empty: set it to a diffusers folder or hub id")
    if config.log.wandb:
        require_wandb()


def print_training_plan(
    config: TrainConfig, gpu_bytes: int | None, size: tuple[int, int, int] | None
) -> None:
    """Print the resolved config, and the FLOPs and memory that it needs.

    Args:
        config: the config.
        gpu_bytes: memory of each GPU; None takes that of this machine's GPU, if there is one.
        size: frames, height and width of the videos, if there are no latents.

    Raises:
        RepriseError: the config cannot run, or does not fit the memory.
    """
    from training.cost.describe import describe_estimate

    print_config(config)
    click.echo()
    estimate = estimate_run(config, size)
    memory = gpu_bytes or get_gpu_memory()
    for line in describe_estimate(estimate, memory):
        click.echo(line)
    estimate.check_fit(memory)


def estimate_run(config: TrainConfig, size: tuple[int, int, int] | None = None) -> Estimate:
    """Estimate the FLOPs and memory of a config, for its latents or for videos of one size.

    Args:
        config: the config.
        size: frames, height and width of every video; None takes the sizes of the latents.

    Raises:
        RepriseError: the latents or the model's config do not exist.
    """
    from training.cost.estimate import Estimate
    from training.cost.workload import estimate_workloads, measure_workloads, with_reference_channels
    from training.models.build import make_family
    from training.models.published import get_model_shape, get_transformer_config, get_vae_config

    transformer, vae = get_transformer_config(config.model), get_vae_config(config.model)
    shape = get_model_shape(config.model, with_reference_channels(config, transformer))
    if size:
        family = make_family(transformer, vae, config.model.path)
        workloads = estimate_workloads(config, family, shape, size)
    else:
        workloads = measure_workloads(config, shape)
    return Estimate(config, transformer, workloads, vae)


def start_training(config: TrainConfig, gpu_bytes: int | None = None) -> bool:
    """Train to the last step and show the progress. Return False if training failed.

    Raises:
        RepriseError: the config cannot run, or does not fit the memory.
    """
    from pipelines.follow import RunFollower
    from training.loop.run_folder import RunFolder
    from training.trainer import run_training

    folder = RunFolder.from_config(config.run)
    done = folder.list_complete_steps()
    if done and done[-1] >= config.steps:
        out.print(f"nothing to do: {done[-1]} steps of {config.steps} are done; more with steps=NUMBER")
    else:
        memory = gpu_bytes or get_gpu_memory()
        if memory is not None:
            estimate_run(config).check_fit(memory)
        if done:
            out.print(f"resuming after step {done[-1]} of {config.steps}")
        try:
            with RunFollower(folder.root, config.steps):
                run_training(config)
        except KeyboardInterrupt:
            err.print(f"\n[bold]stopped[/]: {describe_kept_steps(folder, config)}", soft_wrap=True)
            sys.exit(EXIT_INTERRUPTED)
        except RuntimeError as error:  # workers failed too often; Ray's log has their messages
            err.print(f"[bold red]failed[/] {escape(str(error))}", soft_wrap=True)
            return False
    for name, rel in (("curves", "curves.png"), ("samples", "samples"), ("model", "model")):
        if folder.root.exists(rel):
            out.print(f"{name:<8} {escape(folder.get_address(rel))}", soft_wrap=True)
    return True


def describe_kept_steps(folder: RunFolder, config: TrainConfig) -> str:
    """Say what of a stopped run is kept, and what the same command does next."""
    saved = folder.list_complete_steps()
    if saved:
        return f"step {saved[-1]} of {config.steps} is saved; the same command resumes there"
    return (
        "no checkpoint was saved yet, so the same command starts from the beginning "
        f"(checkpoint.every={config.checkpoint.every} sets how often one is saved)"
    )


def get_gpu_memory() -> int | None:
    """Return the memory of this machine's first GPU in bytes; None if there is no GPU."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def parse_memory(text: str) -> int:
    """Parse "80GB" or "80" to bytes. One GB is 2^30 bytes, as in the names of GPUs.

    Raises:
        UsageError: the text is not of that form.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:G|GB|GiB)?\s*", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise click.UsageError(f"--gpu-memory {text}: write it like 80GB")
    return int(float(found[1]) * (1 << 30))


def parse_size(text: str) -> tuple[int, int, int]:
    """Parse "81x480x832" to frames, height and width.

    Raises:
        UsageError: the text is not of that form.
    """
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text.strip())
    if not found or not all(int(part) for part in found.groups()):
        raise click.UsageError(f"--size {text}: write frames, height and width like 81x480x832")
    return int(found[1]), int(found[2]), int(found[3])


if __name__ == "__main__":
    main()
