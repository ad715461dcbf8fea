"""The command `reprise`, with all commands as subcommands. Each also runs as `python -m pipelines.<name>`."""

from __future__ import annotations

import importlib
from typing import Any

import click

# name -> (module, attribute, summary). A module is imported when its command is called, so that
# `reprise --help` does not wait for Ray.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "curate": ("pipelines.curate", "main", "Videos -> curated dataset, with a report."),
    "export": ("pipelines.export", "main", "A dataset -> the layout that another trainer reads."),
    "encode": (
        "pipelines.encode",
        "main",
        "A dataset or videos -> latents and text embeddings, for training.",
    ),
    "refilter": (
        "pipelines.refilter",
        "main",
        "Apply new thresholds to a finished dataset, without models.",
    ),
    "train": ("pipelines.train", "main", "Encoded latents -> a trained model."),
    "stage": ("pipelines.stage", "main", "Run one stage, Parquet to Parquet."),
    "report": ("pipelines.report", "report", "Build a dataset's report again."),
    "verify": (
        "pipelines.verify",
        "main",
        "Check every file of a dataset, of latents or of a training run.",
    ),
    "audit": ("pipelines.audit", "main", "Judge a sample of a dataset's subjects on a local page."),
    "models": ("pipelines.models", "models", "List, fetch and check the checkpoints of a profile."),
    "taxonomy": ("pipelines.taxonomy", "taxonomy", "List, check or try the taxonomy."),
    "config": ("pipelines.config", "main", "Print every config key with its default and its meaning."),
    "convert": ("pipelines.convert", "convert", "Convert the weights of a released model to another layout."),
    "generate": ("pipelines.generate", "generate", "Pictures of subjects and a prompt -> a video."),
    "lora": ("pipelines.lora", "lora", "Check, convert, merge and unmerge adapter files."),
    "conflict": ("pipelines.conflict", "main", "Plot the conflict between the gradients of two tasks."),
    "demo": ("pipelines.demo", "main", "Make demo videos with known truth and curate them."),
    "playground": (
        "pipelines.playground",
        "playground",
        "Draw videos with known truth, and train small models on them.",
    ),
    "doctor": ("pipelines.doctor", "main", "Show what this machine has and which profile it can run."),
}


class CommandGroup(click.Group):
    """A group of commands that imports the module of a command when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if no command has that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: Any = getattr(importlib.import_module(module), attribute)
        command.name = cmd_name
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries to the help without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


@click.command(cls=CommandGroup)
@click.version_option(package_name="reprise")
def main() -> None:
    """Reprise: raw video in, a subject-to-video model out."""


if __name__ == "__main__":
    main()
