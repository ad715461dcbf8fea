"""`reprise`: every door under one name. Each also runs as `python -m pipelines.<name>`."""

from __future__ import annotations

import importlib
from typing import Any

import click

# name -> (module, attribute, what it does). Imported when called: `reprise --help` must not wait for Ray.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "curate": ("pipelines.curate", "main", "Videos -> curated dataset, with a report."),
    "encode": ("pipelines.encode", "main", "Dataset or videos -> latents and text embeddings, for training."),
    "refilter": ("pipelines.refilter", "main", "Re-decide a dataset under new thresholds, without models."),
    "train": ("pipelines.train", "main", "Encoded latents -> a trained model."),
    "stage": ("pipelines.stage", "main", "Run one stage, Parquet to Parquet."),
    "report": ("pipelines.report", "report", "Build a dataset's report again."),
    "audit": ("pipelines.audit", "main", "Judge a sample of a dataset's subjects on a local page."),
    "models": ("pipelines.models", "models", "List, fetch and check the checkpoints of a profile."),
    "taxonomy": ("pipelines.taxonomy", "taxonomy", "List, check or try the taxonomy."),
    "config": ("pipelines.config", "main", "Print every config key with its default and what it means."),
    "convert": ("pipelines.convert", "convert", "Weights of a released model in another layout."),
    "generate": ("pipelines.generate", "generate", "Pictures of subjects and a prompt -> a video."),
    "lora": ("pipelines.lora", "lora", "Adapter files: check, convert, merge, unmerge."),
    "conflict": ("pipelines.conflict", "main", "Plot how the gradients of two tasks get along."),
    "demo": ("pipelines.demo", "main", "Make demo videos with known truth and curate them."),
    "playground": ("pipelines.playground", "playground", "A drawn world with known truth, and its trainers."),
    "doctor": ("pipelines.doctor", "main", "Say what this machine has and which profile it can run."),
}


class CommandGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: Any = getattr(importlib.import_module(module), attribute)
        command.name = cmd_name
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


@click.command(cls=CommandGroup)
@click.version_option(package_name="reprise")
def main() -> None:
    """Reprise: raw video in, a subject-to-video model out."""


if __name__ == "__main__":
    main()
