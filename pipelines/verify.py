"""reprise verify: whether files of a dataset, latents or a training run are as they were written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from pipelines.console import EXIT_NOTHING_DONE, err, handle_errors, out

if TYPE_CHECKING:
    from reprise.file_records import FileCheck
    from reprise.storage import Storage

_MAX_LINES = 50


@click.command()
@click.argument("place", metavar="FOLDER")
@click.option("--quick", is_flag=True, help="Only look whether each file is there and has its size.")
@handle_errors
def main(place: str, quick: bool) -> None:
    """Check every file of FOLDER: a dataset, latents, or the folder of a training run or a model.

    Prints the damaged files and what makes them again. Exit status 1: something is damaged.
    """
    from reprise.lock import lock_folder
    from reprise.storage import Storage

    folder = Storage.from_uri(place)
    with lock_folder(folder, shared=True):
        check, remedy = verify_folder(folder, quick=quick)
    for each in check.damage[:_MAX_LINES]:
        out.print(f"damaged  {escape(each.path)}: {escape(each.problem)}", soft_wrap=True)
    if len(check.damage) > _MAX_LINES:
        out.print(f"         and {len(check.damage) - _MAX_LINES} more")
    what = "have their sizes" if quick else "are as they were written"
    sound = check.files - len({each.path for each in check.damage})
    out.print(f"{max(0, sound)} of {check.files} files {what}")
    if check.damage:
        err.print(f"to repair it: {escape(remedy)}", soft_wrap=True)
        sys.exit(EXIT_NOTHING_DONE)


def verify_folder(folder: Storage, *, quick: bool) -> tuple[FileCheck, str]:
    """Check a dataset, latents, a run or a model; return what was found and how to repair it.

    Raises:
        RepriseError: it is of no kind that has records, or not finished.
    """
    from curation.dataset.damage import check_dataset
    from curation.dataset.manifest import list_named_shards, read_manifest
    from reprise.errors import InputError
    from reprise.json_files import read_json_object

    if "fingerprint" in (read_json_object(folder, "manifest.json") or {}):  # of latents
        from training.latents.records import check_latent_files

        return check_latent_files(folder, quick=quick), (
            "remove the damaged files and run the `reprise encode` command of these latents again; it "
            "encodes only these parts again"
        )
    manifest = read_manifest(folder)
    if manifest is not None and list_named_shards(manifest):
        return check_dataset(folder, manifest, quick=quick), (
            "remove the damaged files and run the `reprise curate` command of this dataset again with the "
            "same videos and config; it makes only these again"
        )
    from training.loop.run_check import check_run_files

    check = check_run_files(folder, quick=quick)
    if check.files or check.damage:
        return check, (
            "remove the folder of a damaged checkpoint, and the newest checkpoint if exported weights are "
            "damaged; the same `reprise train` goes on from the last sound checkpoint and exports again"
        )
    raise InputError(
        f"{folder.uri} holds no finished dataset, no finished latents and no checkpoint with records: name "
        "the folder that has manifest.json or checkpoints, or run its command again to finish it"
    )


if __name__ == "__main__":
    main()
