"""Load checkpoints that transformers saved, only from this machine, with a clear error for a wrong one."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from curation.model_spec import ModelSpec
from curation.models.checkpoints import Checkpoint
from reprise.errors import RepriseError


def read_options(spec: ModelSpec, **defaults: Any) -> dict[str, Any]:
    """Return a backend's options with its defaults, after a check of names and types.

    Raises:
        RepriseError: the backend has no such option, or its type is not that of the default (an int is
            accepted for a float; a default of None accepts every type).
    """
    for key, value in spec.options.items():
        if key not in defaults:
            known = ", ".join(sorted(defaults)) or "none"
            raise RepriseError(f"models: {spec.backend} has no option {key}; known: {known}")
        wanted = type(defaults[key])
        fits = isinstance(value, wanted) or (wanted is float and type(value) is int)
        if defaults[key] is not None and (not fits or (isinstance(value, bool) and wanted is not bool)):
            raise RepriseError(
                f"models: {spec.backend} option {key} must be {wanted.__name__}, not {value!r}"
            )
    return {**defaults, **spec.options}


def load_pretrained(auto: Any, checkpoint: Checkpoint, label: str, dtype: torch.dtype, **kwargs: Any) -> Any:
    """Load a model with `auto.from_pretrained` from a checkpoint folder, ready for inference.

    Args:
        auto: an Auto class of transformers.
        checkpoint: the folder.
        label: name of the model, for errors.
        dtype: of the weights.
        **kwargs: passed on to `from_pretrained`.

    Raises:
        RepriseError: the checkpoint is of another model, or weights are missing or of other shapes.
            transformers would initialise those at random and only warn.
    """
    with explain_loading_errors(checkpoint, label), _silence_transformers():
        model, report = auto.from_pretrained(
            checkpoint.path,
            local_files_only=True,
            trust_remote_code=False,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, in one line instead of a table
            **kwargs,
        )
    absent = [*_get_key_names(report.get("missing_keys")), *_get_key_names(report.get("mismatched_keys"))]
    if absent:
        raise RepriseError(
            f"{checkpoint.path} is a checkpoint of another model than {label}: "
            f"{len(absent)} weights are missing or of another shape, for example {absent[0]}"
        )
    return model.eval()


def load_processor(auto: Any, checkpoint: Checkpoint, label: str, **kwargs: Any) -> Any:
    """Load a processor, tokenizer or image processor with `auto.from_pretrained`.

    Raises:
        RepriseError: it is not in the checkpoint.
    """
    with explain_loading_errors(checkpoint, label):
        return auto.from_pretrained(checkpoint.path, local_files_only=True, trust_remote_code=False, **kwargs)


def find_model_type(checkpoint: Checkpoint, known: Collection[str], label: str) -> str:
    """Return the `model_type` that a checkpoint's config names, which is one of the known ones.

    Raises:
        RepriseError: it is of another, or has no config.
    """
    from transformers import AutoConfig

    kind = load_processor(AutoConfig, checkpoint, label).model_type
    if kind not in known:
        raise RepriseError(f"{checkpoint.path} is a {kind}, not one of {', '.join(known)}")
    return str(kind)


def require_tokenizer(checkpoint: Checkpoint, label: str) -> None:
    """Check that the checkpoint has a tokenizer. Without its files, transformers 5 builds an empty one.

    Raises:
        RepriseError: it is not.
    """
    if not has_tokenizer(checkpoint.path):
        raise RepriseError(f"{checkpoint.path} cannot be loaded as {label}: it has no tokenizer")


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a vocabulary. A tokenizer of settings only is empty."""
    names = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "tekken.json")
    return any(next(folder.glob(name), None) for name in names)


@contextlib.contextmanager
def explain_loading_errors(checkpoint: Checkpoint, label: str) -> Iterator[None]:
    """Convert a library's error about a checkpoint to a `RepriseError` of one line.

    Libraries raise nearly every type of error for a checkpoint of another model. Out-of-memory errors pass,
    because another checkpoint does not solve them.
    """
    try:
        yield
    except (RepriseError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        message = " ".join(str(error).split())
        message = message if len(message) <= 300 else message[:300] + "..."
        raise RepriseError(
            f"{checkpoint.path} cannot be loaded as {label}: {message or type(error).__name__}"
        ) from error


@contextlib.contextmanager
def _silence_transformers() -> Iterator[None]:
    """Switch off progress bars and tables of weights in each worker.

    Problems in them are raised as errors.
    """
    from transformers.utils import logging

    quiet: Any = logging  # its functions have no types
    before = quiet.get_verbosity()
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    try:
        yield
    finally:
        quiet.set_verbosity(before)
        quiet.enable_progress_bar()


def move_to_device(inputs: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Move a processor's output to a device, its floating-point tensors in `dtype`."""
    moved = {}
    for key, value in inputs.items():
        if isinstance(value, torch.Tensor):
            value = value.to(device, dtype) if value.is_floating_point() else value.to(device)
        moved[key] = value
    return moved


def _get_key_names(keys: Any) -> list[str]:
    """Return the names in a loading report, whose entries are names or tuples that begin with a name."""
    return sorted(str(key[0]) if isinstance(key, tuple) else str(key) for key in keys or ())
