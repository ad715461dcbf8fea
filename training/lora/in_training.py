"""What a training run adds to a model: LoRA and the subject's token."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from training.config import TrainConfig
from training.lora.adapters import add_lora, open_lora, pack_lora, pair_lora_weights
from training.lora.files import LORA_FILE, LoraFile
from training.models import sharded_weights
from training.models.subject_token import (
    SUBJECT_TOKEN_FILE,
    add_subject_token,
    get_subject_token,
    pack_subject_token,
    read_subject_token,
)


def add_adapters(model: nn.Module, config: TrainConfig, family: str) -> LoraFile | None:
    """Add the adapters of the config to a prepared model, on the meta device and before it is sharded.

    Returns:
        The file that LoRA's weights come from, for `load_adapters`; None: there is none.

    Raises:
        RepriseError: a target or the file does not fit the model.
    """
    file = None
    if config.lora is not None:
        file = open_lora(model, config.lora.path, config.lora, family) if config.lora.path else None
        add_lora(model, config.lora, family, file=file)
    if config.token.kind == "trained":
        add_subject_token(model)
    return file


def load_adapters(model: nn.Module, file: LoraFile) -> None:
    """Load LoRA's weights, and the token beside them, into a sharded model; each rank takes its part."""
    for parameter, weight in pair_lora_weights(model, file):
        sharded_weights.fill_parameter(weight, parameter)
    load_token(model, file.path.parent)


def load_token(model: nn.Module, folder: Path) -> None:
    """Load the subject's token of a folder, if the model and the folder have one."""
    token = get_subject_token(model)
    if token is not None and (folder / SUBJECT_TOKEN_FILE).is_file():
        sharded_weights.fill_parameter(read_subject_token(folder, len(token.weight)), token.weight)


def pack_adapters(model: nn.Module, config: TrainConfig, family: str) -> dict[str, bytes]:
    """Return file name -> content of the folder `lora/` of a run. Collective."""
    from safetensors.torch import save

    files: dict[str, bytes] = {}
    if config.lora is not None:
        tensors, header = pack_lora(model, family)
        files[LORA_FILE] = save(tensors, metadata=header)
    if config.token.kind == "trained":
        files[SUBJECT_TOKEN_FILE] = save(pack_subject_token(model))
    return files
