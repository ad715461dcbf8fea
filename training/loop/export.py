"""The trained model as a diffusers pipeline folder: `model/` of a run, for `reprise generate` and others."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch

from reprise.errors import RepriseError
from training.loop import weights
from training.loop.state import State
from training.lora import in_training
from training.models.components import INDEX, local_folder, record_positions
from training.storage import Folder

PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def export(state: State) -> str:
    """Write what was trained, averaged where there are averages; returns the folder's address.

    All weights: a pipeline folder (`export_model`). LoRA alone: `lora/`, in diffusers' format, with the
    subject's token beside it. Collective.
    """
    if state.config.lora is not None:
        return export_lora(state)
    address = export_model(state)
    if state.config.token.kind == "trained":
        export_lora(state, "model")
    return address


def export_lora(state: State, name: str = "lora") -> str:
    """Write adapters and the subject's token into a folder of the run. Collective."""
    target = Folder.at(state.folder.join(name))
    with state.ema.swapped() if state.ema is not None else nullcontext():
        files = in_training.packed(state.model, state.config, state.family.name)
    if state.world.is_main:
        for file, content in files.items():
            target.write(file, content)
    state.world.barrier()
    return target.uri


def export_model(state: State) -> str:
    """Write the weights (averaged, where there are averages) as `model/transformer`; returns the address.

    Collective. On a disk, the parts that were not trained are linked beside it, for a whole pipeline.
    """
    target = Folder.at(state.folder.join("model"))
    with ExitStack() as stack:
        if target.remote:
            local = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            local = Path(f"{target.uri}.partial")
        if state.world.is_main:
            shutil.rmtree(local, ignore_errors=True)
        if state.ema is not None:
            stack.enter_context(state.ema.swapped())
        dtype = DTYPES[state.config.checkpoint.export]
        weights.export(state.model, local / "transformer", dtype, write=state.world.is_main)
        if state.world.is_main:
            _add_parts(state.config.model.path, state.config.model.revision, local, link=not target.remote)
            if (local / INDEX).is_file():
                record_positions(local, state.config.positions)
            if target.remote:
                _upload(local, target)
            else:
                target.delete_folder("")
                local.rename(target.uri)
    state.world.barrier()
    return target.uri


def _add_parts(path: str, revision: str | None, folder: Path, *, link: bool) -> None:
    for part in PARTS:
        try:
            source = local_folder(path, revision, part)
        except RepriseError:
            continue  # a hub model whose other parts are not on this machine: `transformer` stands alone
        if source is None:
            continue
        if link:
            (folder / part).symlink_to(source.resolve(), target_is_directory=True)
        elif part in ("tokenizer", "scheduler"):
            shutil.copytree(source, folder / part)
    transformer = local_folder(path, revision, "transformer")
    if transformer is not None and (transformer.parent / INDEX).is_file():
        shutil.copy(transformer.parent / INDEX, folder / INDEX)


def _upload(local: Path, target: Folder) -> None:
    for file in sorted(local.rglob("*")):
        if file.is_file():
            with file.open("rb") as source, target.create(file.relative_to(local).as_posix()) as sink:
                shutil.copyfileobj(source, sink, 1 << 24)
