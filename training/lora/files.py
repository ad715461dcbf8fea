"""LoRA files: one .safetensors in diffusers' or ComfyUI's key format.

    format     key                                        alpha
    diffusers  transformer.<module>.lora_A.weight         in the header (lora_adapter_metadata), or nowhere
    ComfyUI    diffusion_model.<its name>.lora_A.weight   diffusion_model.<its name>.alpha

diffusers takes a file without alpha as alpha = rank. The released proxy replay file has none, and was trained
with half of that: load it with its alpha (docs/proxy-replay.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from reprise.errors import RepriseError
from training.config import LoraConfig
from training.lora.comfyui import find_diffusers_name, map_comfyui_names
from training.models.subject_token import SUBJECT_TOKEN_FILE

LORA_FILE = "pytorch_lora_weights.safetensors"
LoraKeyLayout = Literal["diffusers", "comfyui"]
_METADATA_KEY = "lora_adapter_metadata"  # diffusers' key for a peft config in a file's header
_REFERENCE_NORM = re.compile(r"\.norm([12])\.reference$")


@dataclass(frozen=True)
class LoraFile:
    """The content of a LoRA file."""

    path: Path
    weights: Mapping[tuple[str, str], Tensor]  # (module, "A" or "B") -> weight
    rank: int
    alpha: float | None  # None: the file does not store it
    reference_only: bool  # LoRA of the adaptive norms acts only on reference tokens

    @property
    def modules(self) -> set[str]:
        """Names of the adapted modules, as in the stock transformer."""
        return {name for name, _ in self.weights}

    def make_config(self, alpha: float | None = None) -> LoraConfig:
        """Make the config that fits this file.

        Args:
            alpha: of a file that stores none.

        Raises:
            RepriseError: neither the file nor the caller gives alpha.
        """
        known = self.alpha if self.alpha is not None else alpha
        if known is None:
            raise RepriseError(f"{self.path} does not store its alpha (rank {self.rank}): give alpha")
        return LoraConfig(rank=self.rank, alpha=known, dropout=0.0, targets=tuple(sorted(self.modules)))


def read_lora_file(path: str | Path, family: str) -> LoraFile:
    """Read a LoRA file of either format.

    Args:
        path: the file, or a folder with only this file.
        family: of the model that the LoRA is for.

    Raises:
        RepriseError: there is no such file, it holds no LoRA, or its LoRA is of another family.
    """
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
        module, part = _parse_key(key, family)
        if not module:
            unknown.append(key)
        elif part == "alpha":
            alphas.add(float(tensor))
        else:
            if _REFERENCE_NORM.search(module):
                module, reference_only = _REFERENCE_NORM.sub(r".norm\1.linear", module), True
            weights[module, part] = tensor
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
    """Write tensors and header of `pack_lora_state` to `path`, or into the folder `path`; return the file."""
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
    """Make tensors (on the CPU) and header of a safetensors file from `<module>.lora_A.weight` -> weight, ...

    Raises:
        RepriseError: the format has no name for a module, or no way to store `reference_only`.
    """
    modules = sorted({name.rpartition(".lora_")[0] for name in state})
    header: dict[str, str] = {"format": "pt"}
    tensors: dict[str, Tensor] = {}
    if layout == "comfyui":
        if reference_only:
            raise RepriseError(
                "ComfyUI cannot apply LoRA only to reference tokens (lora.scope reference_only)"
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


def _parse_key(key: str, family: str) -> tuple[str | None, str]:
    """(the stock transformer's name of a module, "A", "B" or "alpha"); no name: this is no LoRA key."""
    match = re.fullmatch(r"(.+)\.(?:lora_([AB])(?:\.default)?\.weight|alpha)", key)
    if match is None:
        return None, ""
    name, part = match[1], match[2] or "alpha"
    if name.startswith("diffusion_model."):
        return find_diffusers_name(name.removeprefix("diffusion_model."), family), part
    return re.sub(r"^(transformer|base_model\.model)\.", "", name), part


def _find_only_file(path: Path) -> Path:
    if path.is_dir():
        files = sorted(file for file in path.glob("*.safetensors") if file.name != SUBJECT_TOKEN_FILE)
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
