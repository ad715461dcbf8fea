"""What people do to LoRA files and models as a whole: check, convert, merge, take out again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import torch

from reprise.errors import RepriseError
from training.config import LoraConfig, ModelConfig
from training.lora.adapters import load_lora, open_lora, remove_lora
from training.lora.files import LoraFile, LoraKeyLayout, pack_lora_state, read_lora_file, write_lora_file
from training.models.build import build_family
from training.models.components import load_transformer

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def check_lora(path: str | Path, model: str, revision: str | None = None) -> LoraFile:
    """Read a LoRA file and hold it against a model, of which the config alone is read.

    Raises:
        RepriseError: no LoRA, or not of this model.
    """
    given = ModelConfig(path=model, revision=revision)
    family = build_family(given)
    stock = load_transformer(given, family.transformer, torch.float32, "meta")
    file = read_lora_file(path, family.name)
    open_lora(stock, path, _make_config(file, 1.0), family.name)
    return file


def export_lora(
    path: str | Path,
    target: str | Path,
    layout: LoraKeyLayout,
    model: str,
    revision: str | None = None,
    alpha: float | None = None,
) -> Path:
    """Write a LoRA file in another key format, alpha included; returns its path.

    Raises:
        RepriseError: it does not fit the model, has no alpha, or cannot be said in that format.
    """
    file = check_lora(path, model, revision)
    state = {f"{module}.lora_{side}.weight": weight for (module, side), weight in file.weights.items()}
    family = build_family(ModelConfig(path=model, revision=revision)).name
    packed = pack_lora_state(
        state, _require_alpha(file, alpha), family, layout, reference_only=file.reference_only
    )
    return write_lora_file(target, *packed)


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

    The other parts of a model that is a folder are copied, so that the target is a whole pipeline.

    Raises:
        RepriseError: the file does not fit, acts on references alone, or the target is there already.
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
    load_lora(transformer, path, _make_config(file, _require_alpha(file, alpha)), family.name)
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


def _make_config(file: LoraFile, alpha: float) -> LoraConfig:
    return LoraConfig(rank=file.rank, alpha=alpha, dropout=0.0, targets=tuple(sorted(file.modules)))


def _require_alpha(file: LoraFile, alpha: float | None) -> float:
    known = file.alpha if file.alpha is not None else alpha
    if known is None:
        raise RepriseError(f"{file.path} does not say its alpha (rank {file.rank}): give --alpha")
    return known
