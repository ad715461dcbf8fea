"""Reading and writing checkpoint files of the three layouts, without a whole model in memory.

Tensors are memory-mapped; shards and the SAT file are filled tensor by tensor. A 14B model needs a few GB.
"""

from __future__ import annotations

import argparse
import codecs
import json
import math
import mmap
import pickle
import re
import shutil
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reprise.errors import RepriseError
from training.convert.kaleido import TensorNames, WeightLayout, convert_tensor, plan_conversion

SHARD_BYTES = 4_000_000_000
_WEIGHTS = "diffusion_pytorch_model"
_TAG = "1"  # the name that the official converter gives its checkpoint
_SAT_FILES = ("mp_rank_00_model_states.pt", "fsdp2_rank_0000_checkpoint.pt")
# The released training writes these beside the weights (random states, arguments). If they are allowed, its
# files can be read without unpickling anything unknown.
_SAFE_GLOBALS = [
    argparse.Namespace,
    codecs.encode,
    np.ndarray,
    np.dtype,
    np.array(0).__reduce__()[0],
    type(np.dtype(np.uint32)),
]


@dataclass(frozen=True)
class MappedCheckpoint:
    """A checkpoint on disk: tensors by their own names, mapped from the files."""

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    heads: int | None  # of attention; None: no config.json beside the weights


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion."""

    source: WeightLayout
    to: WeightLayout
    blocks: int
    parameters: int
    dtype: str
    files: tuple[Path, ...]
    unknown: tuple[str, ...]  # keys of the source that were left out

    def count_unknown_kinds(self) -> list[tuple[str, int]]:
        """Count the left-out keys by their first two parts, the most frequent first."""
        return Counter(".".join(key.split(".")[:2]) for key in self.unknown).most_common()


def read_checkpoint(path: Path) -> MappedCheckpoint:
    """Map the checkpoint at a file or folder.

    Raises:
        RepriseError: there is none, or it is damaged.
    """
    files, config = _find_weight_files(path)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(_read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file))
    heads = config.get("num_attention_heads") or config.get("num_heads")
    return MappedCheckpoint(tuple(files), tensors, int(heads) if heads else None)


def convert_checkpoint(
    source: Path,
    target: Path,
    to: WeightLayout | None = None,
    *,
    heads: int | None = None,
    base: Path | None = None,
) -> ConversionReport:
    """Convert a checkpoint of any layout to another layout.

    The result is written beside `target` and then renamed, so that a folder at `target` is complete.

    Args:
        source: a file or folder.
        target: a new folder.
        to: the layout; default: diffusers, or sat if the source is diffusers.
        heads: attention heads, of a source without a config.json whose heads are not 128 wide (Wan's are).
        base: a diffusers folder of Wan 2.1, whose VAE, text encoder, tokenizer and scheduler make `target` a
            whole pipeline (only for diffusers).

    Raises:
        RepriseError: `target` is not empty, or `source` is no checkpoint of this model.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RepriseError(f"{target} exists and is not empty; give a new folder")
    found = read_checkpoint(source)
    layout, wanted, unknown = plan_conversion(found.tensors)
    to = to or ("sat" if layout == "diffusers" else "diffusers")
    if base is not None and to != "diffusers":
        raise RepriseError("a base makes a diffusers pipeline; it does not go with another layout")
    config = infer_model_config(wanted, layout, found, heads)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        folder = partial if base is None else _copy_base(base, partial)
        if to == "sat":
            _write_sat(folder, wanted, layout, found.tensors)
        else:
            _write_safetensors(folder, wanted, layout, to, found.tensors)
            settings = config if to == "diffusers" else _build_wan_config(config)
            (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    used = [found.tensors[name] for entry in wanted for name in entry.get_names(layout)]
    return ConversionReport(
        source=layout,
        to=to,
        blocks=int(config["num_layers"]),
        parameters=sum(tensor.numel() for tensor in used),
        dtype=", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in used})),
        files=found.files,
        unknown=tuple(unknown),
    )


def infer_model_config(
    wanted: list[TensorNames], layout: WeightLayout, found: MappedCheckpoint, heads: int | None = None
) -> dict[str, Any]:
    """Infer the diffusers config of weights from their shapes.

    Raises:
        RepriseError: a shape does not fit.
    """
    own: dict[str, Tensor] = {}
    for entry in wanted:
        try:
            own.update(convert_tensor(entry, layout, "diffusers", found.tensors))
        except (RuntimeError, ValueError) as error:
            raise RepriseError(f"{entry.sat} cannot be cut into {', '.join(entry.diffusers)}") from error
    hidden, in_channels, *patch = own["patch_embedding.weight"].shape
    heads = heads or found.heads or (hidden // 128 if hidden % 128 == 0 else None)
    if heads is None or hidden % heads:
        raise RepriseError(
            f"a width of {hidden} is not a multiple of 128; give the number of heads (--heads)"
        )
    config = {
        "_class_name": "WanTransformer3DModel",
        "patch_size": list(patch),
        "num_attention_heads": heads,
        "attention_head_dim": hidden // heads,
        "in_channels": in_channels,
        "out_channels": own["proj_out.weight"].shape[0] // math.prod(patch),
        "text_dim": own["condition_embedder.text_embedder.linear_1.weight"].shape[1],
        "freq_dim": own["condition_embedder.time_embedder.linear_1.weight"].shape[1],
        "ffn_dim": own["blocks.0.ffn.net.0.proj.weight"].shape[0],
        "num_layers": 1 + max(int(name.split(".")[1]) for name in own if name.startswith("blocks.")),
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
        "image_dim": None,
        "added_kv_proj_dim": None,
        "rope_max_seq_len": 1024,
        "pos_embed_seq_len": None,
    }
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        expected = WanTransformer3DModel.from_config(config).state_dict()
    for name, tensor in expected.items():
        if own[name].shape != tensor.shape:
            raise RepriseError(
                f"{name} is {list(own[name].shape)}, a Wan transformer of width {hidden} has "
                f"{list(tensor.shape)} there; the checkpoint is damaged or a part of a sharded one"
            )
    return config


def _find_weight_files(path: Path) -> tuple[list[Path], dict[str, Any]]:
    """The files with weights at `path`, and the config.json beside them."""
    if path.is_file():
        return [path], _read_config(path.parent)
    if not path.is_dir():
        raise RepriseError(f"no checkpoint at {path}; give a .pt or .safetensors file or a folder with one")
    if (path / "latest").is_file():
        tag = (path / "latest").read_text().strip()
        if not (path / tag).is_dir():
            raise RepriseError(
                f"{path / 'latest'} names the checkpoint {tag!r}, but there is no folder {path / tag}"
            )
        return _find_weight_files(path / tag)
    for name in _SAT_FILES:
        if (path / name).is_file():
            parts = sorted(path.glob(re.sub(r"rank_\d+", "rank_*", name)))
            if len(parts) > 1:
                raise RepriseError(
                    f"{path} holds a model cut into {len(parts)} parts ({parts[0].name}, {parts[1].name}, "
                    "...); join them with the code that wrote them first"
                )
            return parts, {}
    indices = sorted(path.glob("*.safetensors.index.json"))
    if indices:
        names = sorted(set(json.loads(indices[0].read_text())["weight_map"].values()))
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise RepriseError(f"{indices[0]} names {missing[0]}, which is not there; fetch the model again")
        return [path / name for name in names], _read_config(path)
    for pattern in ("*.safetensors", "*.pt", "*.pth", "*.bin"):
        files = sorted(path.glob(pattern))
        if files:
            return files, _read_config(path)
    if (path / "transformer").is_dir():
        return _find_weight_files(path / "transformer")
    raise RepriseError(
        f"{path} holds no weights: neither `latest`, {_SAT_FILES[0]}, {_SAT_FILES[1]} nor .safetensors files"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return config if isinstance(config, dict) else {}


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise RepriseError(f"{file} is no whole safetensors file ({error}); fetch it again") from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    """The tensors of a torch file, from its "module" entry where it has one. Nothing unknown is unpickled."""
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            try:
                content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                content = torch.load(
                    file, map_location="cpu", weights_only=True
                )  # the format before torch 1.6
    except pickle.UnpicklingError as error:
        known = str(error).splitlines()
        what = next((line.strip() for line in known if "GLOBAL" in line or "Unsupported" in line), known[0])
        raise RepriseError(
            f"{file} holds Python objects that are not loaded for safety ({what[:160]}); "
            "save only its tensors"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise RepriseError(f"{file} is no whole torch file ({str(error).splitlines()[0][:160]})") from error
    payload = content.get("module", content) if isinstance(content, Mapping) else None
    if not isinstance(payload, Mapping):
        raise RepriseError(f"{file} holds no weights: a {type(content).__name__}, not a state dict")
    return {str(name): value for name, value in payload.items() if isinstance(value, Tensor)}


def _write_sat(
    folder: Path, wanted: list[TensorNames], source: WeightLayout, tensors: Mapping[str, Tensor]
) -> None:
    """<folder>/latest and <folder>/1/mp_rank_00_model_states.pt with the weights under "module"."""
    file = folder / _TAG / _SAT_FILES[0]
    file.parent.mkdir()
    empty = OrderedDict()
    for entry in wanted:
        parts = [tensors[name] for name in entry.get_names(source)]
        rows = sum(part.shape[0] for part in parts)
        empty[entry.sat] = torch.empty(rows, *parts[0].shape[1:], dtype=parts[0].dtype)
    # The file is written without data first, then filled through shared memory, tensor by tensor.
    with torch.serialization.skip_data():
        torch.save({"module": empty}, file)
    del empty
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        mapped = torch.load(file, map_location="cpu", mmap=True, weights_only=True)["module"]
    for entry in wanted:
        start = 0
        for name in entry.get_names(source):
            part = tensors[name]
            mapped[entry.sat][start : start + part.shape[0]] = part
            start += part.shape[0]
    del mapped
    (folder / "latest").write_text(_TAG)


def _write_safetensors(
    folder: Path,
    wanted: list[TensorNames],
    source: WeightLayout,
    to: WeightLayout,
    tensors: Mapping[str, Tensor],
) -> None:
    """Files and index as diffusers names them, for its own layout and for Wan's original."""
    shards = list(_split_shards(wanted, source, to, tensors))
    names: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = (
            f"{_WEIGHTS}.safetensors"
            if len(shards) == 1
            else f"{_WEIGHTS}-{number:05d}-of-{len(shards):05d}.safetensors"
        )
        content: dict[str, Tensor] = {}
        for entry in shard:
            for key, tensor in convert_tensor(entry, source, to, tensors).items():
                content[key] = tensor.clone(memory_format=torch.contiguous_format)
        save_file(content, folder / name, metadata={"format": "pt"})
        names.update(dict.fromkeys(content, name))
    if len(shards) > 1:
        total = sum(_count_bytes(entry, source, tensors) for entry in wanted)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
        (folder / f"{_WEIGHTS}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _split_shards(
    wanted: list[TensorNames], source: WeightLayout, to: WeightLayout, tensors: Mapping[str, Tensor]
) -> Iterator[list[TensorNames]]:
    shard: list[TensorNames] = []
    size = 0
    for entry in wanted:
        more = _count_bytes(entry, source, tensors)
        if shard and size + more > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(entry)
        size += more
    yield shard


def _count_bytes(entry: TensorNames, source: WeightLayout, tensors: Mapping[str, Tensor]) -> int:
    return sum(tensors[name].numel() * tensors[name].element_size() for name in entry.get_names(source))


def _build_wan_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of Wan's original layout."""
    return {
        "_class_name": "WanModel",
        "model_type": "t2v",
        "patch_size": config["patch_size"],
        "text_len": 512,
        "text_dim": config["text_dim"],
        "in_dim": config["in_channels"],
        "out_dim": config["out_channels"],
        "dim": config["num_attention_heads"] * config["attention_head_dim"],
        "ffn_dim": config["ffn_dim"],
        "freq_dim": config["freq_dim"],
        "num_heads": config["num_attention_heads"],
        "num_layers": config["num_layers"],
        "eps": config["eps"],
    }


def _copy_base(base: Path, folder: Path) -> Path:
    """All of a pipeline folder but its transformer, into `folder`; returns where the transformer goes."""
    if not (base / "model_index.json").is_file():
        raise RepriseError(f"{base} is no diffusers pipeline folder (no model_index.json)")
    shutil.copytree(
        base, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("transformer", "transformer_2", ".*")
    )
    (folder / "transformer").mkdir()
    return folder / "transformer"
