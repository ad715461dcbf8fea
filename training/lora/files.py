"""LoRA files: one .safetensors in diffusers' or ComfyUI's keys <-> weights by module of the transformer.

    diffusers   transformer.<module>.lora_A.weight                alpha in the header (lora_adapter_metadata),
    or nowhere ComfyUI     diffusion_model.<its name>.lora_A.weight          alpha as diffusion_model.<its
    name>.alpha

diffusers takes a file without alpha as alpha = rank. The released proxy replay file has none, and was trained
with half of that: load it with its alpha (docs/proxy-replay.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from reprise.errors import RepriseError
from training.models.subject_token import SUBJECT_TOKEN_FILE as TOKEN_FILE

# (diffusers' module name, ComfyUI's), with places for what differs between modules. ComfyUI has, for Wan,
# names of the official code, which diffusers' own loader converts back; for CogVideoX names of its own.
_PLACEHOLDERS = {"#": r"(\d+)", "$": "([qkv])", "@": "([12])"}
_MODULE_NAMES = {
    "wan": (
        ("blocks.#.attn1.to_$", "blocks.#.self_attn.$"),
        ("blocks.#.attn1.to_out.0", "blocks.#.self_attn.o"),
        ("blocks.#.attn2.to_$", "blocks.#.cross_attn.$"),
        ("blocks.#.attn2.to_out.0", "blocks.#.cross_attn.o"),
        ("blocks.#.ffn.net.0.proj", "blocks.#.ffn.0"),
        ("blocks.#.ffn.net.2", "blocks.#.ffn.2"),
        ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
        ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
        ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("proj_out", "head.head"),
        ("patch_embedding", "patch_embedding"),
    ),
    "cogvideox": (
        ("transformer_blocks.#.attn1.to_$", "blocks.#.$"),
        ("transformer_blocks.#.attn1.to_out.0", "blocks.#.attn_out"),
        ("transformer_blocks.#.ff.net.0.proj", "blocks.#.ff_proj"),
        ("transformer_blocks.#.ff.net.2", "blocks.#.ff_out"),
        ("transformer_blocks.#.norm@.linear", "blocks.#.norm@.linear"),
        ("time_embedding.linear_@", "time_embedding_linear_@"),
        ("patch_embed.proj", "patch_embed.proj"),
        ("patch_embed.text_proj", "patch_embed.text_proj"),
        ("norm_out.linear", "norm_out.linear"),
        ("proj_out", "proj_out"),
    ),
}
LORA_FILE = "pytorch_lora_weights.safetensors"
LoraKeyLayout = Literal["diffusers", "comfyui"]
_METADATA_KEY = "lora_adapter_metadata"  # diffusers' key for a peft config in a file's header
_REFERENCE_NORM = re.compile(r"\.norm([12])\.reference$")


@dataclass(frozen=True)
class LoraFile:
    path: Path
    weights: Mapping[tuple[str, str], Tensor]  # (module, "A" or "B") -> weight
    rank: int
    alpha: float | None  # null: the file does not say
    reference_only: bool

    @property
    def modules(self) -> set[str]:
        return {name for name, _ in self.weights}


def read_lora_file(path: str | Path, family: str) -> LoraFile:
    """Read a LoRA file of either format; RepriseError in one line for what is none."""
    from safetensors import SafetensorError, safe_open

    file = _find_only_file(Path(path))
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RepriseError(f"{file}: not a safetensors file ({error})") from None
    weights: dict[tuple[str, str], Tensor] = {}
    alphas: set[float] = set()
    unknown: list[str] = []
    reference_only = False
    for key, tensor in tensors.items():
        match = re.fullmatch(r"(?:transformer\.|diffusion_model\.|base_model\.model\.)?(.+?)\.(.+)", key)
        name = _parse_module(key, family)
        if match is None or name is None:
            unknown.append(key)
        elif key.endswith(".alpha"):
            alphas.add(float(tensor))
        elif side := re.search(r"\.lora_([AB])(?:\.default)?\.weight$", key):
            if _REFERENCE_NORM.search(name):
                name, reference_only = _REFERENCE_NORM.sub(r".norm\1.linear", name), True
            weights[name, side[1]] = tensor
        else:
            unknown.append(key)
    if not weights:
        raise RepriseError(f"{file}: holds no LoRA (keys like transformer.<module>.lora_A.weight)")
    if unknown:
        raise RepriseError(
            f"{file}: {unknown[0]} is no LoRA key of {family}; is it of another model or format?"
        )
    if len(alphas) > 1:
        raise RepriseError(f"{file}: modules of different alpha ({min(alphas):g} to {max(alphas):g})")
    alpha = alphas.pop() if alphas else _read_header_alpha(header)
    return LoraFile(file, weights, _get_common_rank(file, weights), alpha, reference_only)


def write_lora_file(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> Path:
    """Write what `pack` gave to one file; a folder gets diffusers' usual file name."""
    from safetensors.torch import save_file

    file = Path(path)
    if file.suffix != ".safetensors":
        file = file / LORA_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), file, metadata=dict(header))
    return file


def pack_lora_state(
    state: Mapping[str, Tensor],
    alpha: float,
    family: str,
    layout: LoraKeyLayout,
    *,
    reference_only: bool = False,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`<module>.lora_A.weight`, ... -> tensors (on the CPU) and header of a safetensors file."""
    modules = sorted({name.rpartition(".lora_")[0] for name in state})
    header: dict[str, str] = {"format": "pt"}
    tensors: dict[str, Tensor] = {}
    if layout == "comfyui":
        if reference_only:
            raise RepriseError(
                "ComfyUI cannot apply LoRA to reference tokens alone (lora.scope reference_only)"
            )
        names = map_comfyui_names(modules, family)
        for key, weight in state.items():
            module, _, rest = key.rpartition(".lora_")
            tensors[f"diffusion_model.{names[module]}.lora_{rest}"] = weight
        for module in modules:
            tensors[f"diffusion_model.{names[module]}.alpha"] = torch.tensor(float(alpha))
    else:
        if reference_only:
            modules = [re.sub(r"\.norm([12])\.linear$", r".norm\1.reference", name) for name in modules]
        for key, weight in state.items():
            name = (
                re.sub(r"\.norm([12])\.linear\.lora_", r".norm\1.reference.lora_", key)
                if reference_only
                else key
            )
            tensors[f"transformer.{name}"] = weight
        rank = next(weight.shape[0] for key, weight in state.items() if ".lora_A." in key)
        adapter: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "target_modules": modules}
        header[_METADATA_KEY] = json.dumps({f"transformer.{key}": value for key, value in adapter.items()})
    return {key: weight.cpu().contiguous() for key, weight in tensors.items()}, header


def map_comfyui_names(modules: list[str], family: str) -> dict[str, str]:
    """Names of diffusers' modules in ComfyUI; RepriseError for one that it has no name for."""
    names = {}
    for module in modules:
        name = _translate_name(module, _MODULE_NAMES[family])
        if name is None:
            raise RepriseError(f"LoRA of {module} has no name in ComfyUI; export for diffusers instead")
        names[module] = name
    return names


def _parse_module(key: str, family: str) -> str | None:
    """The stock transformer's name of the module that a key is about; None: no such key."""
    name = re.sub(r"\.(alpha|lora_[AB](?:\.default)?\.weight)$", "", key)
    if name == key:
        return None
    if name.startswith("diffusion_model."):
        return _translate_name(
            name.removeprefix("diffusion_model."), [pair[::-1] for pair in _MODULE_NAMES[family]]
        )
    return re.sub(r"^(transformer|base_model\.model)\.", "", name)


def _translate_name(name: str, table: Sequence[tuple[str, ...]]) -> str | None:
    for given, wanted in table:
        match = re.fullmatch(
            "".join(_PLACEHOLDERS.get(letter) or re.escape(letter) for letter in given), name
        )
        if match:
            found = iter(match.groups())
            return "".join(next(found) if letter in _PLACEHOLDERS else letter for letter in wanted)
    return None


def _find_only_file(path: Path) -> Path:
    if path.is_dir():
        files = sorted(file for file in path.glob("*.safetensors") if file.name != TOKEN_FILE)
        if len(files) != 1:
            raise RepriseError(f"{path}: {len(files)} .safetensors files, name the one that holds the LoRA")
        return files[0]
    if not path.is_file():
        raise RepriseError(f"{path}: no such LoRA file")
    return path


def _read_header_alpha(header: Mapping[str, str]) -> float | None:
    stored = json.loads(header[_METADATA_KEY]) if _METADATA_KEY in header else {}
    alpha = stored.get("transformer.lora_alpha")
    return float(alpha) if alpha is not None else None


def _get_common_rank(file: Path, weights: Mapping[tuple[str, str], Tensor]) -> int:
    """The one rank of all modules, each of which has both halves."""
    ranks = {}
    for name, _ in weights:
        halves = weights.get((name, "A")), weights.get((name, "B"))
        if halves[0] is None or halves[1] is None:
            raise RepriseError(f"{file}: {name} has only one of lora_A and lora_B")
        if halves[0].shape[0] != halves[1].shape[1]:
            raise RepriseError(
                f"{file}: {name} has a lora_A of rank {halves[0].shape[0]} and a lora_B of rank "
                f"{halves[1].shape[1]}"
            )
        ranks[name] = int(halves[0].shape[0])
    if len(set(ranks.values())) > 1:
        low, high = min(ranks, key=ranks.__getitem__), max(ranks, key=ranks.__getitem__)
        raise RepriseError(
            f"{file}: ranks differ ({low}: {ranks[low]}, {high}: {ranks[high]}); one is supported"
        )
    return next(iter(ranks.values()))
