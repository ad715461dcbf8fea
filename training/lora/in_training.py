"""What is trained beside or instead of a model's own weights: LoRA and the subject's token."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from training.config import TrainConfig
from training.loop import weights
from training.lora.adapters import add_lora, open_lora, pack_lora, pair_lora_weights
from training.lora.files import LORA_FILE, LoraFile
from training.models.subject_token import SUBJECT_TOKEN_FILE as TOKEN_FILE
from training.models.subject_token import (
    add_subject_token,
    get_subject_token,
    pack_subject_token,
    read_subject_token,
)


def add_adapters(model: nn.Module, config: TrainConfig, family: str) -> LoraFile | None:
    """Give a prepared model, on the meta device and not yet spread, what the config asks for.

    Returns the file of which LoRA's weights come (`fill`), if there is one.

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
    """LoRA's weights of a file, and of the token beside it, into a spread model; each rank takes its part."""
    for parameter, weight in pair_lora_weights(model, file):
        weights.fill_parameter(weight, parameter)
    load_token(model, file.path.parent)


def load_token(model: nn.Module, folder: Path) -> None:
    """The subject's token of a folder, where the model has one and the folder, too."""
    token = get_subject_token(model)
    if token is not None and (folder / TOKEN_FILE).is_file():
        weights.fill_parameter(read_subject_token(folder, len(token.weight)), token.weight)


def pack_adapters(model: nn.Module, config: TrainConfig, family: str) -> dict[str, bytes]:
    """File name -> content of all that was added: what `lora/` of a run holds. Collective."""
    from safetensors.torch import save

    files: dict[str, bytes] = {}
    if config.lora is not None:
        tensors, header = pack_lora(model, family)
        files[LORA_FILE] = save(tensors, metadata=header)
    if config.token.kind == "trained":
        files[TOKEN_FILE] = save(pack_subject_token(model))
    return files
