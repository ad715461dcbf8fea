"""Checkpoints: written as a whole or not at all, and loadable on another number of workers.

Tensors go through torch.distributed.checkpoint: each rank writes its shards, and reads what its new shards
need. Order and noise of samples are functions of seed and step, so of these only the step is saved. No state
of a random generator is saved, because each step seeds its own.
"""

from __future__ import annotations

import io
import json
import platform
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from pydantic import ValidationError
from torch.distributed.checkpoint.filesystem import FileSystemBase
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from reprise.errors import RepriseError
from reprise.file_records import FileRecord, compute_file_digest
from reprise.settings import flatten_keys
from reprise.storage import Storage
from training.config import TrainConfig
from training.loop.callback import Callback
from training.loop.run_folder import COMPLETE_MARKER
from training.loop.state import RunState

#: Sections and keys that decide where and how fast a run computes, not what: they may change on resuming.
FREE_KEYS = (
    *("run", "log", "checkpoint", "validation", "parallel", "data", "lora.frozen"),
    *("compute.checkpointing", "compute.compile", "compute.attention"),
    *("model.path", "model.revision"),
    *("conflict.every", "conflict.groups"),
)
FREE_TASK_KEYS = ("latents", "micro_batch")


def save_checkpoint(state: RunState, callbacks: Sequence[Callback] = ()) -> str:
    """Write a checkpoint of `state.step`; returns its address. Collective."""
    folder, rel = state.folder, state.folder.get_checkpoint_path(state.step)
    writing = rel if folder.root.is_remote else f"{rel}.partial"
    if state.world.is_main:
        folder.root.delete_tree(writing)
    state.world.wait_for_all()
    _merge_bad_samples(state)
    tensors = _collect_tensors(state, callbacks)
    with _silence_warnings():
        dcp.save(tensors, storage_writer=_open_writer(folder.root, writing))
    files = _record_files(state, writing)
    if state.world.is_main:
        facts = {**collect_facts(state, list(tensors["callbacks"])), "files": files}
        folder.root.write_bytes(f"{writing}/{COMPLETE_MARKER}", (json.dumps(facts, indent=2) + "\n").encode())
        if not folder.root.is_remote:
            folder.root.delete_tree(rel)  # the same step, without its marker
            folder.root.rename_folder(writing, rel)
        folder.remove_old_checkpoints(state.config.checkpoint)
    state.world.wait_for_all()
    return folder.get_address(rel)


def _record_files(state: RunState, rel: str) -> list[dict[str, Any]]:
    """Record the files of a checkpoint; each rank reads those that it has written. Collective.

    On S3 only sizes are recorded: reading a checkpoint back would take as long as writing it.
    """
    root, rank = state.folder.root.get_subfolder(rel), state.world.rank
    mine = []
    for file in root.list_files():
        if file.path.startswith(f"__{rank}_") or (state.world.is_main and not file.path.startswith("__")):
            digest = None if root.is_remote else compute_file_digest(root, file.path)
            mine.append(asdict(FileRecord(file.path, file.size, digest)))
    gathered: list[Any] = [None] * state.world.size
    dist.all_gather_object(gathered, mine)
    return sorted((record for records in gathered for record in records), key=lambda each: str(each["path"]))


def resume_run(state: RunState, callbacks: Sequence[Callback] = ()) -> int | None:
    """Load the newest complete checkpoint, if there is one, and return its step. Collective.

    Raises:
        RepriseError: it is of another config or other data than this run, or cannot be read.
    """
    found: list[int | None] = [None]
    if state.world.is_main:
        state.folder.clear_partial()
        found = [max(state.folder.list_complete_steps(), default=None)]
    dist.broadcast_object_list(found)
    if found[0] is None:
        return None
    load_checkpoint(state, found[0], callbacks)
    return found[0]


def load_checkpoint(state: RunState, step: int, callbacks: Sequence[Callback] = ()) -> None:
    """Load the checkpoint of one step into a state of the same config. Collective."""
    saved = state.folder.read_facts(step)
    where = state.folder.get_address(state.folder.get_checkpoint_path(step))
    check_same_run(saved, state, where)
    tensors = _collect_tensors(state, callbacks)
    tensors["callbacks"] = {
        name: kept for name, kept in tensors["callbacks"].items() if name in saved["callbacks"]
    }
    if not tensors["callbacks"]:
        del tensors["callbacks"]
    if "ema" in tensors and not saved["ema"]:
        raise RepriseError(
            f"{where} has no averaged weights: set optimizer.ema to null, or use another run.name"
        )
    try:
        with _silence_warnings():
            dcp.load(
                tensors,
                storage_reader=_open_reader(state.folder.root, state.folder.get_checkpoint_path(step)),
            )
    except (dcp.api.CheckpointException, OSError, EOFError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RepriseError(
            f"{where} cannot be read ({reason}): remove this folder to go back one more"
        ) from error
    set_optimizer_state_dict(state.model, state.optimizer, tensors["optimizer"])
    by_name = {_get_callback_name(callback): callback for callback in callbacks}
    for name, kept in tensors.get("callbacks", {}).items():
        by_name[name].load_state_dict(kept)
    state.loader.bad.merge_reasons(saved.get("bad_samples", {}))
    state.step = step


def _merge_bad_samples(state: RunState) -> None:
    """Let every worker skip the damaged samples that any has met. Collective."""
    everyone: list[dict[str, str]] = [{}] * state.world.size
    dist.all_gather_object(everyone, state.loader.bad.get_reasons())
    for reasons in everyone:
        state.loader.bad.merge_reasons(reasons)


def collect_facts(state: RunState, callbacks: Sequence[str]) -> dict[str, Any]:
    """Collect the content of `complete.json`; callbacks: names of those that save a state."""
    return {
        "step": state.step,
        "sampler": state.sampler.fingerprint,
        "config": state.config.model_dump(mode="json"),
        "ema": state.ema is not None,
        "callbacks": list(callbacks),
        "bad_samples": state.loader.bad.get_reasons(),
        "workers": state.world.size,
        "mesh": dict(zip(state.world.mesh.mesh_dim_names, state.world.mesh.shape, strict=True)),
        "versions": {name: version(name) for name in ("torch", "diffusers", "ray")}
        | {"python": platform.python_version()},
    }


def check_same_run(saved: Mapping[str, Any], state: RunState, where: str) -> None:
    """Check that a checkpoint is of the same config and data as the run.

    Raises:
        RepriseError: a key or the data changed; the message names it.
    """
    check_same_config(saved, state.config, where)
    if saved["sampler"] != state.sampler.fingerprint:
        raise RepriseError(
            f"{where} was trained on other latents than the tasks name now: put them back, or start another "
            "run with another run.name"
        )


def check_same_config(saved: Mapping[str, Any], config: TrainConfig, where: str) -> None:
    """Check that a checkpoint is of the same config as the run.

    Raises:
        RepriseError: names the key that changed.
    """
    try:
        before = TrainConfig.model_validate(saved["config"]).model_dump(mode="json")  # with keys of today
    except ValidationError:
        before = saved["config"]
    changed = list_changed_keys(before, config.model_dump(mode="json"))
    if changed:
        key, was, now = changed[0]
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise RepriseError(
            f"{where} was made with {key}={json.dumps(was)}, the config has {json.dumps(now)}{more}: "
            "put it back, or start another run with another run.name"
        )


def list_changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """List (key, before, now) of keys that may not change. A constant schedule may get more steps."""
    old, new = flatten_keys(before), flatten_keys(now)
    constant = new.get("optimizer.schedule") == "constant"
    return [
        (key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _is_free(key) and not (key == "steps" and constant)
    ]


def _is_free(key: str) -> bool:
    # What decides the samples, such as validation.holdout, is in the sampler's fingerprint.
    parts = key.split(".")
    if parts[0] == "tasks":
        return parts[-1] in FREE_TASK_KEYS
    return any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)


def _collect_tensors(state: RunState, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """All that is saved, as tensors to write or to read into. Frozen weights are not saved."""
    options = StateDictOptions(ignore_frozen_params=True)
    tensors: dict[str, Any] = {
        "model": get_model_state_dict(state.model, options=options),
        "optimizer": get_optimizer_state_dict(state.model, state.optimizer, options=options),
        "callbacks": {_get_callback_name(each): kept for each in callbacks if (kept := each.state_dict())},
    }
    if state.ema is not None:
        tensors["ema"] = dict(state.ema.averages)
    return tensors


def _get_callback_name(callback: Callback) -> str:
    return type(callback).__name__


@contextmanager
def _silence_warnings() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_writer(root: Storage, rel: str) -> dcp.FileSystemWriter:
    if not root.is_remote:
        return dcp.FileSystemWriter(root.join_path(rel))
    writer = dcp.FileSystemWriter("", sync_files=False)
    writer.fs, writer.path = _ObjectFileSystem(root), rel
    return writer


def _open_reader(root: Storage, rel: str) -> dcp.FileSystemReader:
    if not root.is_remote:
        return dcp.FileSystemReader(root.join_path(rel))
    reader = dcp.FileSystemReader("")
    reader.fs, reader.path = _ObjectFileSystem(root), rel
    return reader


class _UnseekableFile:
    """A file that reports that it cannot seek, so that torch reads each tensor in one request.

    Otherwise torch unpacks a tensor in place, in dozens of requests of a few bytes each.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def seekable(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _ObjectFileSystem(FileSystemBase):
    """The file system that torch.distributed.checkpoint needs, on an object store; paths are relative."""

    def __init__(self, root: Storage) -> None:
        self.root = root

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[io.IOBase, None, None]:
        if "r" in mode:
            with self.root.open_input(str(path)) as file:
                yield _UnseekableFile(file)  # type: ignore[misc]
        else:
            with self.root.open_output(str(path)) as file:
                yield file  # type: ignore[misc]  # Arrow's files are used like Python's

    def concat_path(self, path: Any, suffix: str) -> str:
        return f"{path}/{suffix}"

    def init_path(self, path: Any) -> str:
        return str(path)

    def rename(self, path: Any, new_path: Any) -> None:
        self.root.write_bytes(str(new_path), self.root.read_bytes(str(path)))
        self.root.delete_file(str(path))

    def mkdir(self, path: Any) -> None:
        """Objects need no folder."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def exists(self, path: Any) -> bool:
        return self.root.exists(str(path))

    def rm_file(self, path: Any) -> None:
        self.root.delete_file(str(path))
