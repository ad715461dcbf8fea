"""LoRA on a stock transformer, by peft: add, load, save, merge.

There are two scopes. `released`: LoRA acts on every token of every target, as the released proxy replay code
computes. `reference_only`: LoRA on the adaptive norms acts only on reference tokens, which is what the paper
describes (modulation.py); LoRA on other targets acts on every token. docs/proxy-replay.md
explains why `released` is the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reprise.errors import RepriseError
from training.config import LoraConfig
from training.lora.files import LoraFile, LoraKeyLayout, pack_lora_state, read_lora_file, write_lora_file
from training.lora.modulation import ReferenceModulation
from training.models.build import FAMILIES

ADAPTER_NAME = "default"


def add_lora(
    model: nn.Module, config: LoraConfig, family: str, *, seed: int = 0, file: LoraFile | None = None
) -> list[str]:
    """Freeze a model and add untrained LoRA (A drawn from the seed, B zero).

    Args:
        model: prepared by `Family.prepare_model`.
        config: rank, alpha, dropout, targets and scope.
        family: its name.
        seed: of the draw.
        file: the modules, alpha and scope are this file's instead of the config's.

    Returns:
        The names of the adapted modules.

    Raises:
        RepriseError: the model has LoRA already, or a target names none of its modules.
    """
    _check_no_lora(model)
    modules = (
        sorted(file.modules)
        if file
        else find_target_modules(model, config.targets or FAMILIES[family].lora_targets)
    )
    alpha = file.alpha if file and file.alpha is not None else config.alpha
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject_adapters(model, modules, config.rank, alpha, config.dropout)
    _apply_scope(model, "reference_only" if file and file.reference_only else config.scope)
    return modules


def open_lora(model: nn.Module, path: str | Path, config: LoraConfig, family: str) -> LoraFile:
    """Read a LoRA file and check it against a model and the config.

    Args:
        model: without LoRA; it may be on the meta device.
        path: as in `load_lora`.
        config: its rank and targets must be those of the file.
        family: its name.

    Raises:
        RepriseError: the file does not fit the model or the config.
    """
    _check_no_lora(model)
    file = read_lora_file(path, family)
    _check_file(file, model, config, family)
    return file


def load_lora(model: nn.Module, path: str | Path, config: LoraConfig, family: str) -> list[str]:
    """Freeze a model and add the LoRA of a file to it.

    Args:
        model: prepared by `Family.prepare_model`, without LoRA.
        path: a .safetensors file in diffusers' or ComfyUI's key format, or a folder that holds one (the
            released layout: pytorch_lora_weights_transformer.safetensors).
        config: its rank and targets must be those of the file. Its alpha is used if the file stores none, as
            the released one (64 for its rank of 128).
        family: its name.

    Returns:
        The names of the adapted modules.

    Raises:
        RepriseError: the file does not fit the model or the config.
    """
    file = open_lora(model, path, config, family)
    modules = add_lora(model, config, family, file=file)
    with torch.no_grad():
        for parameter, weight in pair_lora_weights(model, file):
            parameter.copy_(weight)
    return modules


def pair_lora_weights(model: nn.Module, file: LoraFile) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield each LoRA parameter of a model that was given `file`, with its weight in the file."""
    for name, parameter in model.named_parameters():
        module, found, rest = name.rpartition(".lora_")
        if found and rest.endswith(f".{ADAPTER_NAME}.weight"):
            yield parameter, file.weights[module, rest[0]]


def get_lora_state(model: nn.Module) -> dict[str, Tensor]:
    """Return `<module>.lora_A.weight` and `<module>.lora_B.weight` -> the whole weight.

    Collective where FSDP2 has sharded the weights.
    """
    state = {}
    for name, parameter in model.named_parameters():
        for side in ("lora_A", "lora_B"):
            if name.endswith(f".{side}.{ADAPTER_NAME}.weight"):
                whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
                state[name.replace(f".{side}.{ADAPTER_NAME}.", f".{side}.")] = whole.detach()
    return state


def save_lora(model: nn.Module, path: str | Path, family: str, layout: LoraKeyLayout = "diffusers") -> Path:
    """Write a model's LoRA to one .safetensors file that diffusers or ComfyUI loads; return its path.

    Both formats store alpha. Neither can store the scope `reference_only`. For diffusers its norms get names
    of their own (`norm1.reference`): Reprise reads them, and other loaders report them as unknown instead of
    applying them to every token.

    Raises:
        RepriseError: ComfyUI cannot apply this LoRA.
    """
    return write_lora_file(path, *pack_lora(model, family, layout))


def pack_lora(
    model: nn.Module, family: str, layout: LoraKeyLayout = "diffusers"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and header of the file that `save_lora` writes. Collective where weights are sharded."""
    alpha, scope = _get_alpha(model), _is_reference_only(model)
    return pack_lora_state(get_lora_state(model), alpha, family, layout, reference_only=scope)


def merge_lora(model: nn.Module) -> None:
    """Add LoRA to the weights in place, so that it adds no time. `unmerge_lora` undoes it."""
    if _is_reference_only(model):
        raise RepriseError("LoRA of scope reference_only cannot be merged: it does not act on all tokens")
    for layer in _list_lora_layers(model):
        layer.merge()


def unmerge_lora(model: nn.Module) -> None:
    """Subtract merged LoRA from the weights; they equal those before within rounding."""
    for layer in _list_lora_layers(model):
        layer.unmerge()


def remove_lora(model: nn.Module) -> nn.Module:
    """Merge LoRA into the weights and return the stock model, as `save_pretrained` should write it."""
    from diffusers.utils import recurse_remove_peft_layers

    merge_lora(model)
    recurse_remove_peft_layers(model)
    if hasattr(model, "peft_config"):
        del model.peft_config
        model._hf_peft_config_loaded = False
    return model


def find_target_modules(model: nn.Module, targets: Iterable[str]) -> list[str]:
    """List the modules whose name is a target or ends in `.` + a target, as peft matches.

    Raises:
        RepriseError: a target matches no module.
    """
    names = [name for name, module in model.named_modules() if _is_adaptable(module)]
    hits: set[str] = set()
    for target in targets:
        own = {name for name in names if name == target or name.endswith(f".{target}")}
        if not own:
            raise RepriseError(f"lora.targets: no linear or convolution of the model is named {target}")
        hits |= own
    return sorted(hits)


def _is_adaptable(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d)


def _inject_adapters(
    model: nn.Module, modules: Sequence[str], rank: int, alpha: float, dropout: float
) -> None:
    import peft

    model.requires_grad_(False)
    # With exact names peft matches only these modules; the suffix "proj" would match more.
    adapter = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(modules), init_lora_weights=True
    )
    model.add_adapter(adapter, ADAPTER_NAME)
    model.train(model.training)  # peft's new layers are in training mode, with dropout
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{ADAPTER_NAME}." in name and ".lora_" in name)


def _apply_scope(model: nn.Module, scope: str) -> None:
    if scope != "reference_only":
        return
    if not hasattr(model, "call"):
        raise RepriseError(
            "lora.scope reference_only needs CogVideoX: only its adaptive norms are linear layers"
        )
    for block in model.transformer_blocks:
        for name in ("norm1", "norm2"):
            setattr(block, name, ReferenceModulation(getattr(block, name), model.call.references))


def _is_reference_only(model: nn.Module) -> bool:
    return any(isinstance(module, ReferenceModulation) for module in model.modules())


def _check_no_lora(model: nn.Module) -> None:
    if any(True for _ in _list_lora_layers(model)):
        raise RepriseError("the model already has LoRA; merge it, or start from the stock model")


def _list_lora_layers(model: nn.Module) -> Iterable[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def _get_alpha(model: nn.Module) -> float:
    for layer in _list_lora_layers(model):
        return float(layer.lora_alpha[ADAPTER_NAME])
    raise RepriseError("the model has no LoRA")


def _check_file(file: LoraFile, model: nn.Module, config: LoraConfig, family: str) -> None:
    """Check that the file's modules are in the model, have its shapes, and are the config's targets."""
    modules = dict(model.named_modules())
    unknown = sorted(name for name in file.modules if name not in modules or not _is_adaptable(modules[name]))
    if unknown:
        raise RepriseError(
            f"{file.path}: {_abbreviate_names(unknown)} not in the model; is this LoRA for another model?"
        )
    expected = set(find_target_modules(model, config.targets or FAMILIES[family].lora_targets))
    if missing := sorted(expected - file.modules):
        raise RepriseError(f"{file.path}: no LoRA for {_abbreviate_names(missing)}, which lora.targets names")
    if extra := sorted(file.modules - expected):
        raise RepriseError(
            f"{file.path}: LoRA for {_abbreviate_names(extra)}, which lora.targets does not name"
        )
    if file.rank != config.rank:
        raise RepriseError(f"{file.path}: LoRA of rank {file.rank}, but lora.rank is {config.rank}")
    for name in sorted(file.modules):
        weight, down, up = modules[name].weight, file.weights[name, "A"], file.weights[name, "B"]
        if tuple(down.shape[1:]) != tuple(weight.shape[1:]) or up.shape[0] != weight.shape[0]:
            raise RepriseError(
                f"{file.path}: LoRA of {name} is for weights of another shape than {tuple(weight.shape)}; "
                "is it of another size of the model?"
            )


def _abbreviate_names(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
