"""Merge a LoRA file into the weights of a model, on disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import torch

from reprise.errors import RepriseError
from training.config import ModelConfig
from training.lora.adapters import load_lora, remove_lora
from training.lora.export import check_lora
from training.models.build import build_family
from training.models.components import load_transformer
from training.precision import DTYPES


def write_merged_model(
    path: str | Path,
    target: str | Path,
    *,
    model: str,
    revision: str | None = None,
    alpha: float | None = None,
    dtype: Literal["bf16", "fp32"] = "bf16",
    sign: Literal[1, -1] = 1,
) -> Path:
    """Write `target/transformer`: a model's weights plus (sign 1) or minus (-1) LoRA, added in float32.

    If the model is a folder, its other parts are copied, so that the target is a whole pipeline.

    Args:
        path: the LoRA file, or a folder that holds it.
        target: the new folder.
        model: the folder or hub id that the LoRA is for.
        revision: of the model on the hub.
        alpha: of a file that stores none.
        dtype: of the written weights.
        sign: -1 takes merged LoRA out again.

    Raises:
        RepriseError: the file does not fit, acts only on references, or the target exists.
    """
    folder = Path(target)
    if folder.exists():
        raise RepriseError(f"{folder} is there already: name a new folder")
    file = check_lora(path, model, revision)
    if file.reference_only:
        raise RepriseError(f"{file.path}: LoRA of scope reference_only cannot be merged")
    given = ModelConfig(path=model, revision=revision)
    family = build_family(given)
    transformer = load_transformer(given, family.transformer, torch.float32)
    load_lora(transformer, path, file.make_config(alpha), family.name)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if ".lora_B." in name:
                parameter.mul_(sign)
    merged = remove_lora(transformer).to(DTYPES[dtype])
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    if Path(model).is_dir():
        shutil.copytree(model, partial, ignore=shutil.ignore_patterns("transformer"))
    merged.save_pretrained(partial / "transformer")
    partial.rename(folder)
    return folder
