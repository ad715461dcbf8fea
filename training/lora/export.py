"""Check a LoRA file against a model; write it in another key format."""

from __future__ import annotations

from pathlib import Path

import torch

from training.config import ModelConfig
from training.lora.adapters import open_lora
from training.lora.files import LoraFile, LoraKeyLayout, pack_lora_state, read_lora_file, write_lora_file
from training.models.build import build_family
from training.models.components import load_transformer


def check_lora(path: str | Path, model: str, revision: str | None = None) -> LoraFile:
    """Read a LoRA file and check that it fits a model, of which only the config is read.

    Args:
        path: a file, or a folder that holds it.
        model: a folder or hub id.
        revision: of the model on the hub.

    Raises:
        RepriseError: it is no LoRA, or not one of this model.
    """
    given = ModelConfig(path=model, revision=revision)
    family = build_family(given)
    stock = load_transformer(given, family.transformer, torch.float32, "meta")
    file = read_lora_file(path, family.name)
    open_lora(stock, path, file.make_config(alpha=1.0), family.name)
    return file


def export_lora(
    path: str | Path,
    target: str | Path,
    layout: LoraKeyLayout,
    model: str,
    revision: str | None = None,
    alpha: float | None = None,
) -> Path:
    """Write a LoRA file in another key format, alpha included; return its path.

    Args:
        path: the LoRA file, or a folder that holds it.
        target: the file to write, or a folder for it.
        layout: the key format to write.
        model: the folder or hub id that the LoRA is for.
        revision: of the model on the hub.
        alpha: of a file that stores none.

    Raises:
        RepriseError: it does not fit the model, has no alpha, or the format cannot express it.
    """
    file = check_lora(path, model, revision)
    state = {f"{module}.lora_{side}.weight": weight for (module, side), weight in file.weights.items()}
    family = build_family(ModelConfig(path=model, revision=revision)).name
    alpha = file.make_config(alpha).alpha
    packed = pack_lora_state(state, alpha, family, layout, reference_only=file.reference_only)
    return write_lora_file(target, *packed)
