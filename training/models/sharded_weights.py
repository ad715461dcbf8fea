"""Load and export weights of a sharded model tensor by tensor: no worker ever holds the whole model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from reprise.errors import RepriseError
from training.data import random_streams

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
SHARD_BYTES = 5_000_000_000  # of an exported file, about
_LORA_NAME = re.compile(r"\.lora_([A-Za-z_]+)\b")
_ADAPTER_NAME = re.compile(r"\.lora_[A-Za-z_]+\b|\.subject_token\b")  # what no released model has


def initialize_weights(model: nn.Module, seed: int, device: torch.device) -> None:
    """Give a sharded model on the meta device its random weights.

    Each module is initialised whole on the CPU by its own `reset_parameters`, from a generator that its name
    seeds, and each rank keeps its shard. So weights depend on the seed and the name, not on the layout.
    """
    model.to_empty(device=device)
    for name, module in model.named_modules():
        _draw_parameters(name, module, seed)
    _check_buffers(model)


def load_sharded_weights(model: nn.Module, folder: Path, seed: int, device: torch.device) -> None:
    """Give a sharded model on the meta device the weights of a diffusers folder (safetensors).

    Each rank reads only the rows of its own shards. Parameters of adapters (peft), which such a folder does
    not have, are drawn as `initialize_weights` draws them.

    Raises:
        RepriseError: files are missing or damaged, or tensors are missing or of other shapes.
    """
    files = _find_tensor_files(folder)
    model.to_empty(device=device)
    for name, module in model.named_modules():
        if _ADAPTER_NAME.search(name):
            _draw_parameters(name, module, seed)
    with ExitStack() as stack:
        opened: dict[str, Any] = {}
        for full_name, parameter in model.named_parameters():
            if _ADAPTER_NAME.search(full_name):
                continue
            name = full_name.replace(".base_layer.", ".")  # what peft wraps keeps its name in the file
            if name not in files:
                raise RepriseError(f"{folder} lacks the tensor {name}: it is incomplete or of another model")
            file = files[name]
            try:
                if file not in opened:
                    opened[file] = stack.enter_context(safe_open(folder / file, framework="pt"))
                _read_rows(opened[file].get_slice(name), parameter, f"{folder / file}: {name}")
            except (OSError, SafetensorError) as error:
                raise RepriseError(f"cannot read {folder / file}: {' '.join(str(error).split())}") from error
    _check_buffers(model)


def fill_parameter(whole: Tensor, parameter: Tensor) -> None:
    """Copy this rank's part of a whole tensor into a sharded parameter."""
    with torch.no_grad():
        _get_local(parameter).copy_(_get_part(whole, parameter))


def gather_tensors(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter whole, on the CPU, one at a time. Collective: all ranks iterate together."""
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        yield name, whole.to(device="cpu", dtype=dtype)


def export_weights(model: nn.Module, folder: Path, dtype: torch.dtype, *, write: bool) -> None:
    """Write a sharded diffusers model as a folder that `from_pretrained` loads.

    Collective: all ranks call it, and the one with `write` writes. It holds the tensors of at most one file.
    """
    sizes = {
        name: parameter.numel() * dtype.itemsize
        for name, parameter in model.named_parameters()
        if not _ADAPTER_NAME.search(name)
    }
    names = _split_files(sizes)
    where = {name: file for file, group in names.items() for name in group}
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        # FSDP gave the class another name.
        config = json.loads(model.to_json_string()) | {"_class_name": _get_plain_class(model).__name__}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    held: dict[str, Tensor] = {}
    for name, tensor in gather_tensors(model, dtype):
        if not write or name not in where:
            continue
        held[name] = tensor.contiguous()
        group = names[where[name]]
        if name == group[-1]:
            save_file(held, folder / where[name], metadata={"format": "pt"})
            held = {}
    if write and len(names) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        (folder / f"{WEIGHTS_FILE}.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _split_files(sizes: dict[str, int]) -> dict[str, list[str]]:
    """File -> names of its tensors, in order; one plain file where all fit."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > SHARD_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {WEIGHTS_FILE: groups[0]}
    stem, suffix = WEIGHTS_FILE.rsplit(".", 1)
    return {
        f"{stem}-{number:05d}-of-{len(groups):05d}.{suffix}": group
        for number, group in enumerate(groups, start=1)
    }


def _find_tensor_files(folder: Path) -> dict[str, str]:
    """Tensor name -> file of a diffusers folder."""
    index = folder / f"{WEIGHTS_FILE}.index.json"
    if index.is_file():
        try:
            found: dict[str, str] = json.loads(index.read_text())["weight_map"]
        except (json.JSONDecodeError, KeyError) as error:
            raise RepriseError(f"{index} is no index of safetensors files: fetch the model again") from error
        return found
    if not (folder / WEIGHTS_FILE).is_file():
        raise RepriseError(f"{folder} has no {WEIGHTS_FILE}: weights in safetensors are needed")
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            return dict.fromkeys(file.keys(), WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise RepriseError(f"cannot read {folder / WEIGHTS_FILE}: {' '.join(str(error).split())}") from error


def _read_rows(source: Any, parameter: nn.Parameter, where: str) -> None:
    """This rank's rows of one tensor of a file."""
    shape, wanted = tuple(source.get_shape()), tuple(parameter.shape)
    # A patch embedding widened for channel concatenation: the channels that the file lacks start at zero.
    widened = len(shape) == len(wanted) == 5 and shape[1] < wanted[1]
    if shape != wanted and not (widened and shape[:1] + shape[2:] == wanted[:1] + wanted[2:]):
        raise RepriseError(f"{where} has the shape {list(shape)}, the model needs {list(wanted)}")
    local = _get_local(parameter)
    if not local.numel():
        return
    if not shape:
        rows = source[...]
    else:
        begin = _get_rows(parameter).start
        rows = source[begin : begin + local.shape[0]]
    with torch.no_grad():
        if widened:
            local.zero_()
            local[:, : shape[1]].copy_(rows)
        else:
            local.copy_(rows)


def _get_local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _get_rows(parameter: Tensor) -> range:
    """Rows (of the first dimension) of the whole tensor that this rank has."""
    if not isinstance(parameter, DTensor):
        return range(parameter.shape[0])
    rows = range(parameter.shape[0])
    for dimension, placement in enumerate(parameter.placements):
        if placement.is_shard():
            share = -(-len(rows) // parameter.device_mesh.size(dimension))
            begin = min(parameter.device_mesh.get_local_rank(dimension) * share, len(rows))
            rows = rows[begin : begin + share]
    return rows


def _get_part(whole: Tensor, parameter: Tensor) -> Tensor:
    if not whole.ndim:
        return whole
    rows = _get_rows(parameter)
    return whole[rows.start : rows.stop]


def _draw_parameters(name: str, module: nn.Module, seed: int) -> None:
    """Fresh values for the parameters that belong to one module itself; each rank keeps its part."""
    own = dict(module.named_parameters(recurse=False))
    if not own:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_streams.derive_stream_seed(seed, "weights", name))
        fresh = _draw_values(module, own)
    found = _LORA_NAME.search(name)
    for key, parameter in own.items():
        with torch.no_grad():
            # The second factor of an adapter starts at zero: at first it changes nothing.
            value = fresh[key].zero_() if found and found[1].endswith("B") else fresh[key]
            _get_local(parameter).copy_(_get_part(value, parameter))


def _draw_values(module: nn.Module, own: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Fresh values for the parameters that belong to one module itself, on the CPU."""
    values = {name: torch.empty(parameter.shape, dtype=torch.float32) for name, parameter in own.items()}
    if hasattr(module, "reset_parameters"):
        # On a substitute of the same class that has these tensors, because the module itself has shards.
        stand_in: Any = object.__new__(_get_plain_class(module))
        stand_in.__dict__.update(module.__dict__)
        stand_in.__dict__["_parameters"] = {name: nn.Parameter(value) for name, value in values.items()}
        for name, parameter in module._parameters.items():
            stand_in.__dict__["_parameters"].setdefault(name, None if parameter is None else parameter)
        stand_in.reset_parameters()
        return {name: stand_in._parameters[name].detach() for name in own}
    for value in values.values():
        # Free-standing parameters of these models are learned tables, drawn as normal / sqrt(width).
        value.normal_().div_(math.sqrt(value.shape[-1]) if value.ndim else 1.0)
    return values


def _get_plain_class(module: nn.Module) -> type:
    """The class that the module had before FSDP gave it a subclass."""
    from torch.distributed.fsdp import FSDPModule

    return next(cls for cls in type(module).__mro__ if not issubclass(cls, FSDPModule))


def _check_buffers(model: nn.Module) -> None:
    for name, buffer in model.named_buffers():
        if buffer.is_meta:
            raise NotImplementedError(f"the buffer {name} has no values after initialisation on meta")
