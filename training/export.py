"""The trained model as a diffusers pipeline folder: `model/` of a run, for `reprise generate` and others."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack, nullcontext
from pathlib import Path

from reprise.errors import RepriseError
from reprise.file_records import write_folder_records
from reprise.storage import Storage
from training.loop.state import RunState
from training.lora import in_training
from training.models import sharded_weights
from training.models.components import INDEX_FILE, locate_part, record_positions
from training.models.generation_defaults import DEFAULTS_FILE, GenerationDefaults, encode_defaults
from training.precision import DTYPES

FROZEN_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")


def export_run(state: RunState) -> str:
    """Write what was trained, averaged where there are averages, and return the folder's address.

    All weights: a pipeline folder (`export_model`). Only LoRA: `lora/`, in diffusers' format, with the
    subject's token beside it. Collective.
    """
    if state.config.lora is not None:
        return export_adapters(state)
    address = export_model(state)
    if state.config.token.kind == "trained":
        export_adapters(state, "model")
    return address


def export_adapters(state: RunState, name: str = "lora") -> str:
    """Write adapters and the subject's token into a folder of the run. Collective."""
    target = state.folder.root.get_subfolder(name)
    with state.ema.use_averages() if state.ema is not None else nullcontext():
        files = in_training.pack_adapters(state.model, state.config, state.family.name)
    if state.world.is_main:
        files[DEFAULTS_FILE] = _pack_defaults(state)
        for file, content in files.items():
            target.write_bytes(file, content)
        write_folder_records(target, files)
    state.world.wait_for_all()
    return target.uri


def export_model(state: RunState) -> str:
    """Write the weights (averaged, where there are averages) as `model/transformer`; returns the address.

    Collective. On a disk, the parts that were not trained are linked beside it, for a whole pipeline.
    """
    target = state.folder.root.get_subfolder("model")
    with ExitStack() as stack:
        if target.is_remote:
            local = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            local = Path(f"{target.uri}.partial")
        if state.world.is_main:
            shutil.rmtree(local, ignore_errors=True)
        if state.ema is not None:
            stack.enter_context(state.ema.use_averages())
        dtype = DTYPES[state.config.checkpoint.export]
        sharded_weights.export_weights(state.model, local / "transformer", dtype, write=state.world.is_main)
        if state.world.is_main:
            _add_parts(state.config.model.path, state.config.model.revision, local, link=not target.is_remote)
            (local / DEFAULTS_FILE).write_bytes(_pack_defaults(state))
            if (local / INDEX_FILE).is_file():
                record_positions(local, state.config.positions)
            # What is only linked is not ours.
            ours = [file.relative_to(local).as_posix() for file in local.rglob("*") if file.is_file()]
            write_folder_records(Storage.from_uri(local), ours)
            if target.is_remote:
                _upload_folder(local, target)
            else:
                state.folder.root.delete_tree("model")
                local.rename(target.uri)
    state.world.wait_for_all()
    return target.uri


def _pack_defaults(state: RunState) -> bytes:
    """The content of the file from which `reprise generate` reads size, rate, steps and guidance.

    The size is the most frequent one of the videos that were trained on, or of the pictures without videos.
    """
    sizes: Counter[tuple[int, int, int, float]] = Counter()
    for latents in {each.folder.uri: each for each in state.latents.values()}.values():
        names = ("video_height", "video_width", "video_frames", "fps")
        sizes.update(zip(*(latents.records.get_column(name) for name in names), strict=True))
    videos = {size: count for size, count in sizes.items() if size[2] > 1} or sizes
    height, width, frames, fps = min(videos, key=lambda size: (-videos[size], size))
    validation = state.config.validation
    return encode_defaults(
        GenerationDefaults(
            height=height,
            width=width,
            frames=frames,
            fps=fps or state.family.default_size.fps,
            steps=validation.steps,
            guidance=validation.guidance,
        )
    )


def _add_parts(path: str, revision: str | None, folder: Path, *, link: bool) -> None:
    for part in FROZEN_PARTS:
        try:
            source = locate_part(path, revision, part)
        except RepriseError:
            continue  # a hub model whose other parts are not on this machine: only `transformer` is written
        if source is None:
            continue
        if link:
            (folder / part).symlink_to(source.resolve(), target_is_directory=True)
        elif part in ("tokenizer", "scheduler"):
            shutil.copytree(source, folder / part)
    transformer = locate_part(path, revision, "transformer")
    if transformer is not None and (transformer.parent / INDEX_FILE).is_file():
        shutil.copy(transformer.parent / INDEX_FILE, folder / INDEX_FILE)


def _upload_folder(local: Path, target: Storage) -> None:
    for file in sorted(local.rglob("*")):
        if file.is_file():
            target.put_file(file, file.relative_to(local).as_posix())
