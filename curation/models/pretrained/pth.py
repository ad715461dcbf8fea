"""Read the weights of a `.pth` without running pickled code, and check every key before they are used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curation.models.checkpoints import Checkpoint
from curation.models.pretrained.loading import explain_loading_errors
from reprise.errors import RepriseError


def find_single_file(path: Path, suffix: str, label: str) -> Path:
    """Find `path` itself, or the only file with `suffix` in the folder `path`.

    Raises:
        RepriseError: it has another suffix, or the folder has none or several.
    """
    if path.is_file():
        if path.suffix != suffix:
            raise RepriseError(f"{path} is no {suffix} file: {label} needs one")
        return path
    found = sorted(path.glob(f"*{suffix}"))
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise RepriseError(f"{label} needs one {suffix} file in {path}; found {names}")
    return found[0]


def read_weights(path: Path, checkpoint: Checkpoint, label: str) -> dict[str, Tensor]:
    """Read name -> tensor, on the CPU, from the file or its keys `model` or `state_dict`, without `module.`.

    Raises:
        RepriseError: the file is incomplete, no PyTorch file, or has no weights.
    """
    with explain_loading_errors(checkpoint, label):
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(torch.is_tensor(each) for each in state.values())
    ):
        raise RepriseError(f"{path} holds no weights by name: it is no checkpoint of {label}")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_weights(
    model: nn.Module, state: Mapping[str, Tensor], path: Path, label: str, ignore: Iterable[str] = ()
) -> None:
    """Load weights into a model, without exception.

    Args:
        model: the model.
        state: name -> tensor.
        path: their file, for errors.
        label: name of the model, for errors.
        ignore: patterns of names in the file that the model does not need.

    Raises:
        RepriseError: weights are missing, left over or of another shape: the file is of another model.
    """
    own = model.state_dict()
    missing = sorted(set(own) - set(state))
    extra = sorted(
        name for name in set(state) - set(own) if not any(re.fullmatch(each, name) for each in ignore)
    )
    other = sorted(name for name in set(own) & set(state) if own[name].shape != state[name].shape)
    problems = [
        f"{len(names)} weights {fault}, for example {names[0]}"
        for names, fault in ((missing, "are missing"), (extra, "are not its"), (other, "have another shape"))
        if names
    ]
    if problems:
        raise RepriseError(f"{path} is a checkpoint of another model than {label}: {'; '.join(problems)}")
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in own})
