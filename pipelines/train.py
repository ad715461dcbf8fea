"""reprise train: a config and encoded latents -> a trained model, on this machine or a Ray cluster."""

from __future__ import annotations

import re
import sys

import click
from rich.markup import escape

from pipelines.console import EXIT_INTERRUPTED, EXIT_NOTHING_DONE, err, handle_errors, out, print_config
from reprise.errors import WorkersLostError
from training.config import TrainConfig, list_recipes, load_train_config


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
    config = load_train_config(path, recipe, overrides)
    gpu_bytes = parse_memory(gpu_memory) if gpu_memory else None
    frames = parse_size(size) if size else None
    if frames and not dry_run:
        raise click.UsageError("--size goes with --dry-run: a run trains on the sizes of its latents")
    from training.trainer import check_trainable  # importing torch takes seconds, which --help can do without

    check_trainable(config)
    if dry_run:
        print_training_plan(config, gpu_bytes, frames)
    elif not start_training(config, gpu_bytes):
        sys.exit(EXIT_NOTHING_DONE)


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
    from training.cost.devices import get_gpu_memory
    from training.cost.estimate import estimate_run

    print_config(config)
    click.echo()
    estimate = estimate_run(config, size)
    memory = gpu_bytes or get_gpu_memory()
    for line in describe_estimate(estimate, memory):
        click.echo(line)
    estimate.check_fit(memory)


def describe_longer_run(config: TrainConfig) -> str:
    """Say how to train for more steps than a finished run has."""
    if config.optimizer.schedule == "constant":
        return "more with steps=NUMBER"
    return (
        f"its learning rate ends there (optimizer.schedule={config.optimizer.schedule}): for more, start "
        "a run with another run.name"
    )


def start_training(config: TrainConfig, gpu_bytes: int | None = None) -> bool:
    """Train to the last step and show the progress. Return False if training failed.

    Raises:
        RepriseError: the config cannot run, or does not fit the memory.
    """
    from pipelines.follow import RunFollower
    from training.cost.devices import get_gpu_memory
    from training.cost.estimate import estimate_run
    from training.loop.run_folder import RunFolder
    from training.trainer import check_resumable, run_training

    folder = RunFolder.from_config(config.run)
    done = folder.count_done_steps()
    if done >= config.steps:
        out.print(f"nothing to do: {done} steps of {config.steps} are done; {describe_longer_run(config)}")
    else:
        memory = gpu_bytes or get_gpu_memory()
        if memory is not None:
            estimate_run(config).check_fit(memory)
        check_resumable(config)
        if done:
            out.print(f"resuming after step {done} of {config.steps}")
        try:
            with RunFollower(folder.root, config.steps):
                run_training(config)
        except KeyboardInterrupt:
            err.print(f"\n[bold]stopped[/]: {folder.describe_kept_steps(config)}", soft_wrap=True)
            sys.exit(EXIT_INTERRUPTED)
        except WorkersLostError as error:
            err.print(f"[bold red]failed[/] {escape(str(error))}", soft_wrap=True)
            return False
    for name, address in folder.list_results().items():
        out.print(f"{name:<8} {escape(address)}", soft_wrap=True)
    return True


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
