"""reprise encode: a dataset, videos or pairs of pictures -> latents and text embeddings for training."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from pipelines.console import EXIT_NOTHING_DONE, ProgressBar, err, handle_errors, out, print_config

if TYPE_CHECKING:
    from reprise.storage import Storage
    from training.latents.store import LatentsManifest


@click.command()
@click.option("--dataset", help="A dataset that `reprise curate` wrote; local or s3://.")
@click.option("--videos", help="Instead: a folder of videos, or a CSV, JSONL or Parquet list of them.")
@click.option("--pairs", help="Instead: pairs of pictures; a dataset, Subjects200K, a folder or a list.")
@click.option("--model", required=True, help="Diffusers folder or hub id whose VAE and text encoder encode.")
@click.option("--revision", help="Revision of a hub id.")
@click.option("--output", required=True, help="Folder of the latents; local or s3://.")
@click.option("--config", "path", type=click.Path(), help="YAML; `reprise config encode` prints every key.")
@click.option("--dry-run", is_flag=True, help="Print the resolved config and the number of rows, and stop.")
@click.option("--overwrite", is_flag=True, help="Remove latents that are already there and start over.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@handle_errors
def main(
    dataset: str | None,
    videos: str | None,
    pairs: str | None,
    model: str,
    revision: str | None,
    output: str,
    path: str | None,
    dry_run: bool,
    overwrite: bool,
    overrides: tuple[str, ...],
) -> None:
    """Encode clips, references and captions with a VAE and a text encoder. Run the command again to resume.

    KEY=VALUE overrides the config, for example buckets.frames=[49,33] references.size=own.
    """
    from reprise.errors import InputError
    from reprise.settings import load_settings
    from training.latents.config import EncodeConfig

    config = load_settings(EncodeConfig, path, overrides)
    if sum(place is not None for place in (dataset, videos, pairs)) != 1:
        raise InputError("name what to encode: one of --dataset, --videos and --pairs")
    from reprise.storage import Storage
    from training.latents import encode, on_ray
    from training.latents.encoders import read_model_facts
    from training.latents.sources.curated import CuratedSource
    from training.latents.sources.open_pairs import open_pairs
    from training.latents.sources.source import Source
    from training.latents.sources.videos import VideoSource

    latents = Storage.from_uri(output)
    source: Source
    if dataset:
        source = CuratedSource(Storage.from_uri(dataset), config)
    elif pairs:
        source = open_pairs(pairs, config)
    else:
        source = VideoSource(videos or "", config)
    if dry_run:
        facts = read_model_facts(model, revision, config)
        buckets = encode.make_buckets(facts, config)
        planned = source.plan_items(print_note)
        print_config(config)
        lengths = ", ".join(str(frames) for frames in buckets.frames)
        click.echo(f"\n# {facts.family}: {lengths} frames at {buckets.fps:g} per second")
        click.echo(f"# {len(planned)} rows, {sum(not p.drop for p in planned)} to encode")
        return
    with lock_dataset(dataset or pairs):
        manifest = encode.encode_dataset(
            source,
            model,
            latents,
            config,
            on_ray.execute_on_ray,
            revision=revision,
            overwrite=overwrite,
            progress=ProgressBar(config.engine.progress),
            notify=print_note,
        )
    print_accounting(manifest, latents)
    if not manifest.encoded:
        sys.exit(EXIT_NOTHING_DONE)


@contextlib.contextmanager
def lock_dataset(place: str | None) -> Iterator[None]:
    """Keep other runs from changing the dataset at an address; of anything else there is no lock."""
    from reprise.lock import lock_folder
    from reprise.storage import Storage

    dataset = Storage.from_uri(place) if place else None
    if dataset is None or not dataset.is_file("manifest.json"):
        yield
        return
    with lock_folder(dataset, shared=True):
        yield


def print_note(line: str) -> None:
    """Print a note on what was found or ignored in a source."""
    err.print(escape(line), soft_wrap=True)


def print_accounting(manifest: LatentsManifest, latents: Storage) -> None:
    """Print how many rows were encoded, and every reason for which rows were dropped."""
    out.print(f"{manifest.rows_in} rows = {manifest.encoded} encoded + {manifest.dropped} dropped")
    for reason, count in manifest.reasons.items():
        out.print(f"  - {count:>5} {escape(reason)}")
    if manifest.left_out:
        out.print(f"  ! {manifest.left_out:>5} pictures of encoded rows could not be read")
    if manifest.buckets:
        sizes = ", ".join(f"{count} {size}" for size, count in manifest.buckets.items())
        out.print(f"buckets     {sizes}  (latent frames x height x width)", soft_wrap=True)
    if manifest.references:
        out.print(
            f"references  {', '.join(f'{n} {v}' for v, n in manifest.references.items())}", soft_wrap=True
        )
    out.print(f"latents     {escape(latents.uri)}", soft_wrap=True)
    if manifest.dropped:
        out.print(f"each one    {escape(latents.join_path('dropped.parquet'))}", soft_wrap=True)
    if not manifest.encoded:
        err.print("[bold red]nothing could be encoded[/]")


if __name__ == "__main__":
    main()
