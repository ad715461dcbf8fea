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
from curation.models.profiles import list_pretrained_specs
from curation.models.pull import pull_checkpoint
from pipelines.console import EXIT_NOTHING_DONE, err, handle_errors, out
from reprise.errors import RepriseError


class _ProfileChoice(click.Choice[str]):
    """A profile that loads published checkpoints. The error for an earlier name gives the new name."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in FORMER_NAMES:
            self.fail(f"the profile {value} is now named {FORMER_NAMES[value]}", param, ctx)
        return super().convert(value, param, ctx)


_OFF = {"captioner": "off, so that a video needs a caption of its own"}
_TABLE_WIDTH = 400  # columns, at most

_PROFILE = click.option(
    "--profile", type=_ProfileChoice(sorted(catalogue.PUBLISHED)), default="pretrained", show_default=True
)
_SIZE = click.option(
    "--size",
    type=click.Choice(list(catalogue.SIZES)),
    help="Only what this size of the profile uses: "
    + ", ".join(f"{size} ({purpose})" for size, purpose in catalogue.SIZES.items())
    + ".",
)
_NAME = click.option("--name", help="Only the checkpoint of this name.")


@click.group()
def models() -> None:
    """Checkpoints of the profiles: list them, fetch them, check them."""


@models.command("list")
@click.argument("role", required=False)
@_PROFILE
@_SIZE
@handle_errors
def list_models(role: str | None, profile: str, size: str | None) -> None:
    """List every checkpoint with its licence, its size, and whether it is on this machine."""
    found = _choose_entries(profile, role, None, size, everything=True)
    table = Table(box=None, pad_edge=False)
    for column in ("role", "name", "backends", "checkpoint", "revision", "licence", "GB", "size", "here"):
        table.add_column(column, overflow="fold")
    for entry in found:
        mark = " *" if entry.is_default else ""
        gigabytes = "?" if entry.gigabytes is None else f"{entry.gigabytes:g}"
        table.add_row(
            entry.role + mark, entry.name, _format_backends(entry), escape(entry.source),
            (entry.revision or "-")[:8],
            escape(_format_licence(entry)), gigabytes, " ".join(entry.sizes) or "-",
            "yes" if _is_present(entry) else "no",
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
    if size is not None and role is None:
        for line in (*_list_plain_roles(size), _format_total(size, found)):
            out.print(line, soft_wrap=True)


@models.command("pull")
@click.argument("what", metavar="[ROLE|HUB-ID[@REVISION]|URL]", required=False)
@_PROFILE
@_SIZE
@_NAME
@click.option("--all", "everything", is_flag=True, help="Alternatives, too, not only what the profile uses.")
@click.option("--dry-run", is_flag=True, help="Print what would be fetched and how large it is, and stop.")
@handle_errors
def pull_models(
    what: str | None, profile: str, size: str | None, name: str | None, everything: bool, dry_run: bool
) -> None:
    """Fetch checkpoints before a run, because a run fetches none. Run the command again to resume."""
    if what is not None and "/" in what:
        source, _, revision = (what, "", "") if checkpoints.is_url(what) else what.partition("@")
        known = catalogue.find_published(source)
        if dry_run:
            _print_plan(source, known)
            return
        _pull_checkpoint(source, revision or (known.revision if known else None), known)
        return
    found = _choose_entries(profile, what, name, size, everything)
    for line in _list_warnings(found):
        err.print(line, soft_wrap=True)
    # Two roles can share a checkpoint.
    found = list({(entry.source, entry.revision): entry for entry in found}.values())
    if dry_run:
        for entry in found:
            _print_plan(entry.source, entry)
        out.print(_format_total(size, found), soft_wrap=True)
        return
    failed = 0
    for entry in found:
        try:
            _pull_checkpoint(entry.source, entry.revision, entry)
        except RepriseError as error:
            # A checkpoint that is gated or removed must not prevent the others.
            err.print(f"[bold red]error[/] {escape(str(error))}", soft_wrap=True)
            failed += 1
    if failed:
        err.print(
            f"{failed} of {len(found)} checkpoints are not here. The same command goes on where it stopped. "
            "Without a network: run it on a machine that has one, copy the folder "
            f"{escape(str(checkpoints.get_models_folder()))} here, and name it in REPRISE_MODELS.",
            soft_wrap=True,
        )
        sys.exit(EXIT_NOTHING_DONE)
    if size is not None and what is None:
        err.print(f"reprise curate --input VIDEOS --output DATASET profile={profile} models.size={size}")


@models.command("check")
@click.argument("role", required=False)
@_PROFILE
@_SIZE
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
    role: str | None,
    profile: str,
    size: str | None,
    name: str | None,
    everything: bool,
    load: bool,
    path: str | None,
) -> None:
    """Check that each checkpoint is here and complete; exit status 1 if one is not."""
    bad = 0
    wanted = (
        [
            (each.role, each.name, catalogue.build_spec(each))
            for each in _choose_entries(profile, role, name, size, everything)
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
    err.print(f"{escape(source)}{_format_size(entry)}", soft_wrap=True)
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


def _print_plan(source: str, entry: PublishedCheckpoint | None) -> None:
    state = "here" if entry is not None and _is_present(entry) else "to fetch"
    out.print(f"{state:8s}  {escape(source)}{_format_size(entry)}", soft_wrap=True)


def _format_size(entry: PublishedCheckpoint | None) -> str:
    return f", {entry.weight_bytes:,} bytes" if entry and entry.weight_bytes else ""


def _format_total(size: str | None, found: Iterable[PublishedCheckpoint]) -> str:
    name = f"size {size} ({catalogue.SIZES[size]})" if size else "total"
    return f"{name}: {catalogue.sum_weight_bytes(found):,} bytes"


def _list_plain_roles(size: str) -> list[str]:
    """Say of each role without a checkpoint of this size what fills it."""
    filled = {entry.role for entry in catalogue.list_published(size=size)}
    specs = list_pretrained_specs(size)
    return [
        f"{role}: " + ("the classical backend, no download" if role in specs else _OFF.get(role, "off"))
        for role in backends.ROLES
        if role not in filled
    ]


def _load_model(role: str, name: str, spec: ModelSpec) -> None:
    if backends.is_base(role, name):
        return  # the model that needs it loads it
    if backends.find_backend(role, spec.backend) is None:
        raise RepriseError(f"no backend {spec.backend} of the {role} is registered to load it with")
    registry.build_backend(role, spec)


def _choose_entries(
    profile: str, role: str | None, name: str | None, size: str | None, everything: bool
) -> list[PublishedCheckpoint]:
    """Choose checkpoints: those that the profile uses, or all of them, or the one of a name.

    Raises:
        RepriseError: there is no such role or name.
    """
    found = catalogue.list_published(profile, role, name, size)
    if not found:
        roles = ", ".join(dict.fromkeys(entry.role for entry in catalogue.list_published(profile)))
        names = ", ".join(entry.name for entry in catalogue.list_published(profile, role))
        if role in roles.split(", ") and name is None:
            raise RepriseError(f"size {size} of {profile} has no checkpoint of the role {role}")
        if not names:
            raise RepriseError(f"the profile {profile} has no role {role}; roles are {roles}")
        raise RepriseError(f"there is no checkpoint named {name}; names are {names}")
    return found if everything or name or size else [entry for entry in found if entry.is_default]


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
