"""Read the commands of the documents, and check each without running it.

A command is in a fenced block, in an indented block, or in `code` within a sentence. In a block whose
commands begin with `$`, the other lines are what they print.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from curation.config import load_config
from pipelines.cli import COMMANDS
from reprise.settings import load_settings
from training.config import TrainConfig
from training.latents.config import EncodeConfig

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "ray_configs" / "README.md",
    *sorted((REPOSITORY / "docs").glob("**/*.md")),
]
PROGRAMS = (
    "reprise",
    "make",
    "python",
    "python3",
    "ray",
    "pip",
    "uv",
    "export",
    "kubectl",
    "cd",
    ".venv/bin/",
)
# Languages of fenced blocks that are no commands; other tests run or check them.
OTHER_LANGUAGES = ("python", "yaml", "sql", "json", "text", "dockerfile", "mermaid", "bibtex")
CURATION_COMMANDS = ("curate", "demo", "refilter", "stage")
CHECKED_TYPES = (click.Choice, click.types.IntParamType, click.types.FloatParamType)
RECIPES = REPOSITORY / "training" / "recipes"


@dataclass
class Command:
    """One command of a document, in one line, and its output in the document."""

    document: Path
    line: int
    text: str
    inline: bool = False
    output: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(REPOSITORY)}:{self.line}"


@dataclass
class Block:
    """A fenced or indented block: its first line's number, its language ("" if it has none), its lines."""

    document: Path
    line: int
    language: str
    lines: list[str]


def read_blocks(document: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a document, and the indented ones with the language "indented"."""
    block: Block | None = None
    fenced = False
    blank_before = True
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if fenced and block:
                yield block
                block, fenced = None, False
            else:
                block, fenced = Block(document, number + 1, line[3:].strip(), []), True
        elif fenced and block:
            block.lines.append(line)
        elif line.startswith("    ") and (block or blank_before):
            block = block or Block(document, number, "indented", [])
            block.lines.append(line[4:])
        elif block and not fenced and line.strip():
            yield block
            block = None
        elif block and not fenced:
            block.lines.append("")
        blank_before = not line.strip()
    if block and not fenced:
        yield block


def has_commands(block: Block) -> bool:
    """Return True if a block has commands, and not only output, a table or a program."""
    return any(is_command(line.removeprefix("$ ")) for line in block.lines)


def is_command(line: str) -> bool:
    """Tell whether a line begins with a program that the documents call."""
    return line.split(" ")[0] in PROGRAMS


def read_commands(block: Block) -> list[Command]:
    """Return the commands of a block, continued lines joined, each with its printed lines.

    Raises:
        ValueError: a line is neither a command, nor a comment, nor printed by a command.
    """
    prompts = any(line.startswith("$ ") for line in block.lines)
    commands: list[Command] = []
    continues = False
    for number, line in enumerate(block.lines, block.line):
        text = line.removesuffix("\\").rstrip()
        if continues:
            commands[-1].text += " " + text.strip()
        elif line.startswith("$ ") or (not prompts and is_command(line)):
            commands.append(Command(block.document, number, text.removeprefix("$ ")))
        elif prompts and commands:
            commands[-1].output.append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"{block.document.name}:{number}: no command, and printed by none: {line}")
        continues = line.endswith("\\")
    return commands


def read_inline_commands(document: Path) -> list[Command]:
    """Return the commands in `code` within sentences."""
    commands = []
    fenced = False
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith("    "):
            commands += [
                Command(document, number, text, inline=True)
                for text in re.findall(r"`((?:reprise|make|python -m|ray job) [^`]+)`", line)
            ]
    return commands


def check_command(command: Command) -> None:
    """Check that the program, its options and its settings exist.

    Raises:
        ValueError: something in the command does not exist.
    """
    text = re.sub(r"\[(--[^\]]*|[A-Z]+(?:\.\.\.)?)\]", r"\1", command.text)  # what may be left out
    arguments = shlex.split(text, comments=True)
    incomplete = command.inline or "..." in arguments
    after_option = {i + 1 for i, word in enumerate(arguments) if word.startswith("--")}
    arguments = [word for i, word in enumerate(arguments) if word != "..." or i in after_option]
    check_arguments(arguments, incomplete)


def check_arguments(arguments: list[str], incomplete: bool = False) -> None:
    """Check a command that is split into words; an incomplete one may lack what is required."""
    redirect = next((i for i, word in enumerate(arguments) if word in (">", ">>", "|", "&&")), len(arguments))
    arguments = arguments[:redirect]
    while arguments and re.fullmatch(r"[A-Z_]+=.*", arguments[0]):
        arguments = arguments[1:]  # variables of the environment
    match arguments:
        case ["reprise", *rest]:
            check_reprise(rest, incomplete)
        case ["python" | "python3", "-m", module, *rest]:
            check_module(module, rest, incomplete)
        case ["make", *rest]:
            check_make(rest)
        case ["ray", *rest]:
            check_ray(rest, incomplete)
        case ["pip", "install", *packages] | ["uv", "pip", "install", *packages]:
            check_packages(packages)
        case ["export", *_] | ["cat", _]:
            pass
        case ["kubectl", "apply" | "get" | "logs" | "port-forward" | "delete" | "create", *_]:
            check_files(arguments)
        case _:
            raise ValueError(f"nothing checks `{' '.join(arguments)}`: add it to tests/docs/commands.py")


def check_reprise(arguments: list[str], incomplete: bool) -> None:
    """Check a `reprise` command: its name, options, choices and overrides of the config."""
    if not arguments or arguments[0].startswith("--"):
        if set(arguments) - {"--help", "--version"}:
            raise ValueError(f"reprise has no {arguments}")
        return
    name, *rest = arguments
    if name not in COMMANDS:
        raise ValueError(f"reprise has no command {name}")
    module, attribute, _ = COMMANDS[name]
    command = getattr(importlib.import_module(module), attribute)
    context = click.Context(command, info_name=name)
    while isinstance(command, click.Group):
        if not rest:
            return
        name_of_group, (name, *rest) = command.name, rest
        if name not in command.commands:
            raise ValueError(f"reprise {name_of_group} has no command {name}")
        command = command.commands[name]
        context = click.Context(command, info_name=name, parent=context)
    values = check_options(command, context, rest, incomplete)
    check_settings(
        arguments[0], list(values.get("overrides") or ()), values.get("recipe"), values.get("path")
    )


def check_options(
    command: click.Command, context: click.Context, arguments: list[str], incomplete: bool
) -> dict[str, Any]:
    """Return the values of a command's options and arguments; choices and numbers are checked."""
    if "--help" in arguments:
        return {}
    try:
        values, _, _ = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        if not (incomplete and isinstance(error, click.MissingParameter)):
            raise ValueError(f"`{' '.join(arguments)}`: {error.format_message()}") from None
        values = {}
    values = {
        name: value if isinstance(value, str | list | tuple) else None for name, value in values.items()
    }
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if parameter.required and value in (None, ()) and not incomplete:
            raise ValueError(f"`{' '.join(arguments)}`: {parameter.name} is missing")
        checkable = isinstance(parameter.type, CHECKED_TYPES)
        for each in value if isinstance(value, list | tuple) else [value]:
            if checkable and isinstance(each, str) and not each.isupper():
                parameter.type.convert(each, parameter, context)
    return values


def check_settings(command: str, overrides: list[str], recipe: object, path: object) -> None:
    """Check `key=value` overrides against the config that the command reads."""
    file = REPOSITORY / str(path) if path and (REPOSITORY / str(path)).is_file() else None
    if command in CURATION_COMMANDS:
        load_config(file, tuple(overrides))
    elif command in ("train", "encode"):
        kind: type[BaseModel] = TrainConfig if command == "train" else EncodeConfig
        load_settings(kind, RECIPES / f"{recipe}.yaml" if recipe else file, tuple(overrides))
    elif overrides:
        raise ValueError(f"reprise {command} takes no overrides: {overrides}")


def check_module(module: str, arguments: list[str], incomplete: bool) -> None:
    """Check `python -m MODULE ...`: the module exists and knows the options."""
    if module.startswith("pipelines."):
        check_reprise([module.removeprefix("pipelines."), *arguments], incomplete)
    elif module == "pytest":
        check_files(arguments)
    elif (REPOSITORY / (module.replace(".", "/") + ".py")).is_file() or (REPOSITORY / module).is_dir():
        known = read_help(module)
        for option in (word.split("=")[0] for word in arguments if word.startswith("--")):
            if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known):
                raise ValueError(f"python -m {module} has no option {option}")
    else:
        raise ValueError(f"there is no module {module}")


@cache
def read_help(module: str) -> str:
    """Return what `python -m MODULE --help` prints; for a module without options, its text."""
    path = REPOSITORY / (module.replace(".", "/") + ".py")
    if path.is_file() and "argparse" not in path.read_text(encoding="utf-8"):
        return path.read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def check_make(arguments: list[str]) -> None:
    """Check that the targets and variables are in the Makefile."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for word in arguments:
        pattern = rf"^{word.split('=')[0]}\s*\??=" if "=" in word else rf"^{word}:"
        if not re.search(pattern, makefile, re.MULTILINE):
            raise ValueError(f"the Makefile has no {word}")


def check_ray(arguments: list[str], incomplete: bool) -> None:
    """Check a command of Ray, and the command that a job runs."""
    from ray.scripts.scripts import cli

    own, job = (
        (arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :])
        if "--" in arguments
        else (arguments, [])
    )
    command: click.Command = cli
    context = click.Context(command)
    while isinstance(command, click.Group) and own:
        found = command.get_command(context, own[0])
        if found is None:
            raise ValueError(f"ray has no command {own[0]}")
        command, own = found, own[1:]
    check_options(command, context, [*own, "--", *job] if job else own, incomplete)
    if job:
        check_arguments(job)


def check_packages(arguments: list[str]) -> None:
    """Check that the extras of Reprise that are installed exist."""
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for word in arguments:
        if found := re.fullmatch(r"(?:reprise|\.)\[([\w,-]+)\]", word):
            for extra in found[1].split(","):
                if not re.search(rf"^{extra} = \[", project, re.MULTILINE):
                    raise ValueError(f"reprise has no extra {extra}")
        elif not re.fullmatch(r"-e|\.|[\w-]+(\[[\w,-]+\])?", word):
            raise ValueError(f"pip install {word}: what is it?")


def check_files(arguments: list[str]) -> None:
    """Check that what looks like a file of the repository is there."""
    for word in arguments:
        file = word.split("::")[0]
        if re.search(r"/.*\.(py|yaml)$", file) and not (REPOSITORY / file).is_file():
            raise ValueError(f"there is no {file}")
