"""reprise models: list the checkpoints of a profile, fetch them before a run, check their files."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from curation.config import FORMER_NAMES, load_config
from curation.model_spec import ModelSpec
from curation.models import backends, catalogue, checkpoints, registry
from curation.models.catalogue import PublishedCheckpoint
from curation.models.pull import pull_checkpoint
from pipelines.console import EXIT_NOTHING_DONE, err, handle_errors, out
from reprise.errors import RepriseError


class _ProfileChoice(click.Choice[str]):
    """A profile that loads published checkpoints. The error for an earlier name gives the new name."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in FORMER_NAMES:
            self.fail(f"the profile {value} is now named {FORMER_NAMES[value]}", param, ctx)
        return super().convert(value, param, ctx)


_TABLE_WIDTH = 400  # columns, at most

_PROFILE = click.option(
    "--profile", type=_ProfileChoice(sorted(catalogue.PUBLISHED)), default="pretrained", show_default=True
)
_NAME = click.option("--name", help="Only the checkpoint of this name.")


@click.group()
def models() -> None:
    """Checkpoints of the profiles: list them, fetch them, check them."""


@models.command("list")
@click.argument("role", required=False)
@_PROFILE
@handle_errors
def list_models(role: str | None, profile: str) -> None:
    """List every checkpoint with its licence, its size, and whether it is on this machine."""
    found = _choose_entries(profile, role, None, everything=True)
    table = Table(box=None, pad_edge=False)
    for column in ("role", "name", "backends", "checkpoint", "revision", "licence", "GB", "here"):
        table.add_column(column, overflow="fold")
    for entry in found:
        mark = " *" if entry.default else ""
        size = "?" if entry.gigabytes is None else f"{entry.gigabytes:g}"
        table.add_row(
            entry.role + mark, entry.name, _format_backends(entry), escape(entry.source),
            (entry.revision or "-")[:8],
            escape(_format_licence(entry)), size, "yes" if _is_present(entry) else "no",
        )  # fmt: skip
    # The table is not folded to the width of the terminal, because a folded address cannot be copied.
    Console(width=_TABLE_WIDTH, highlight=False).print(table, crop=False)
    out.print(
        f"\n* what the profile {profile} uses by default. They lie in {checkpoints.get_models_folder()}",
        soft_wrap=True,
    )
    for entry in found:
        if entry.note:
            out.print(f"{entry.name}: {escape(entry.note)}", soft_wrap=True)
    for line in _list_warnings(found):
        out.print(line, soft_wrap=True)


@models.command("pull")
@click.argument("what", metavar="[ROLE|HUB-ID[@REVISION]|URL]", required=False)
@_PROFILE
@_NAME
@click.option("--all", "everything", is_flag=True, help="Alternatives, too, not only what the profile uses.")
@handle_errors
def pull_models(what: str | None, profile: str, name: str | None, everything: bool) -> None:
    """Fetch checkpoints before a run, because a run fetches none. Run the command again to resume."""
    if what is not None and "/" in what:
        source, _, revision = (what, "", "") if checkpoints.is_url(what) else what.partition("@")
        known = catalogue.find_published(source)
        _pull_checkpoint(source, revision or (known.revision if known else None), known)
        return
    found = _choose_entries(profile, what, name, everything)
    for line in _list_warnings(found):
        err.print(line, soft_wrap=True)
    failed = 0
    for entry in found:
        try:
            _pull_checkpoint(entry.source, entry.revision, entry)
        except RepriseError as error:
            # A checkpoint that is gated or removed must not prevent the others.
            err.print(f"[bold red]error[/] {escape(str(error))}", soft_wrap=True)
            failed += 1
    if failed:
        sys.exit(EXIT_NOTHING_DONE)


@models.command("check")
@click.argument("role", required=False)
@_PROFILE
@_NAME
@click.option("--all", "everything", is_flag=True, help="Alternatives, too, not only what the profile uses.")
@click.option(
    "--load", is_flag=True, help="Also build each model as a run does. Default: only check the files."
)
@click.option(
    "--config",
    "path",
    type=click.Path(),
    help="Check what this config uses, with local paths, not a profile.",
)
@handle_errors
def check_models(
    role: str | None, profile: str, name: str | None, everything: bool, load: bool, path: str | None
) -> None:
    """Check that each checkpoint is here and complete; exit status 1 if one is not."""
    bad = 0
    wanted = (
        [
            (each.role, each.name, catalogue.build_spec(each))
            for each in _choose_entries(profile, role, name, everything)
        ]
        if path is None
        else _list_used_specs(path, role)
    )
    for model_role, model_name, spec in wanted:
        try:
            checkpoint = checkpoints.resolve_checkpoint(spec)
            if load:
                _load_model(model_role, model_name, spec)
        except RepriseError as error:
            out.print(f"[bold red]no[/]  {model_role} {model_name}: {escape(str(error))}", soft_wrap=True)
            bad += 1
            continue
        out.print(
            f"[bold green]yes[/] {model_role} {model_name}: {escape(str(checkpoint.path))} "
            f"revision {checkpoint.revision[:12]} sha256 {checkpoint.sha256}" + (" loads" if load else ""),
            soft_wrap=True,
        )
    if bad:
        sys.exit(EXIT_NOTHING_DONE)


def _list_used_specs(path: str, role: str | None) -> list[tuple[str, str, ModelSpec]]:
    """List (role, backend, spec) of every checkpoint that a config uses.

    Raises:
        RepriseError: the config cannot be read, or uses none.
    """
    found = [each for each in registry.list_checkpoint_specs(load_config(path)) if role in (None, each[0])]
    if not found:
        raise RepriseError(f"{path} uses no checkpoint" + (f" for the role {role}" if role else ""))
    return found


def _pull_checkpoint(source: str, revision: str | None, entry: PublishedCheckpoint | None) -> None:
    size = f", {entry.gigabytes:g} GB" if entry and entry.gigabytes else ""
    err.print(f"{escape(source)}{size}", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("fetching", total=None, visible=checkpoints.is_url(source))
        path = pull_checkpoint(
            source,
            revision,
            entry.files if entry else (),
            entry.sha256 if entry else None,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    out.print(escape(str(path)), soft_wrap=True)


def _load_model(role: str, name: str, spec: ModelSpec) -> None:
    if backends.is_base(role, name):
        return  # the model that needs it loads it
    if backends.find_backend(role, spec.backend) is None:
        raise RepriseError(f"no backend {spec.backend} of the {role} is registered to load it with")
    registry.build_backend(role, spec)


def _choose_entries(
    profile: str, role: str | None, name: str | None, everything: bool
) -> list[PublishedCheckpoint]:
    """Choose checkpoints: those that the profile uses, or all of them, or the one of a name.

    Raises:
        RepriseError: there is no such role or name.
    """
    found = catalogue.list_published(profile, role, name)
    if not found:
        roles = ", ".join(dict.fromkeys(entry.role for entry in catalogue.list_published(profile)))
        names = ", ".join(entry.name for entry in catalogue.list_published(profile, role))
        if not names:
            raise RepriseError(f"the profile {profile} has no role {role}; roles are {roles}")
        raise RepriseError(f"there is no checkpoint named {name}; names are {names}")
    return found if everything or name else [entry for entry in found if entry.default]


def _format_backends(entry: PublishedCheckpoint) -> str:
    loaders = backends.find_loaders(entry.role, entry.name)
    return ", ".join(backend.name for backend in loaders) or "-"


def _is_present(entry: PublishedCheckpoint) -> bool:
    try:
        checkpoints.locate_checkpoint(entry.source, entry.revision)
    except RepriseError:
        return False
    return True


def _format_licence(entry: PublishedCheckpoint) -> str:
    return (entry.licence or "unknown") + (", gated" if entry.gated else "")


def _list_warnings(found: Iterable[PublishedCheckpoint]) -> list[str]:
    """Warn about licences that forbid commercial use or are unknown."""
    found = list(found)
    lines = []
    bound = dict.fromkeys(entry.name for entry in found if entry.commercial is False)
    unknown = dict.fromkeys(entry.name for entry in found if entry.commercial is None)
    if bound:
        lines.append(f"[bold]non-commercial use only:[/] {', '.join(bound)}")
    if unknown:
        lines.append(f"[bold]licence of the weights unknown:[/] {', '.join(unknown)}")
    return lines


if __name__ == "__main__":
    models()
