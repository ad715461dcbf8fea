"""Names of LoRA's modules in ComfyUI, from and to those of diffusers.

For Wan they are the names of the official code, which diffusers' own loader converts back. For CogVideoX they
are ComfyUI's own. Each family has its table (`Family.comfyui_names`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reprise.errors import RepriseError
from training.models.build import FAMILIES

# Placeholders in the tables for the parts of a name that differ between modules.
_PLACEHOLDERS = {"#": r"(\d+)", "$": "([qkv])", "@": "([12])"}


def map_comfyui_names(modules: Sequence[str], family: str) -> dict[str, str]:
    """Map names of diffusers' modules to ComfyUI's.

    Raises:
        RepriseError: ComfyUI has no name for a module.
    """
    names = {}
    for module in modules:
        name = _translate_name(module, FAMILIES[family].comfyui_names)
        if name is None:
            raise RepriseError(f"LoRA of {module} has no name in ComfyUI; export for diffusers instead")
        names[module] = name
    return names


def find_diffusers_name(name: str, family: str) -> str | None:
    """Return diffusers' name of a module that ComfyUI calls `name`; None where there is none."""
    return _translate_name(name, [pair[::-1] for pair in FAMILIES[family].comfyui_names])


def _translate_name(name: str, table: Sequence[tuple[str, ...]]) -> str | None:
    for given, wanted in table:
        pattern = "".join(_PLACEHOLDERS.get(letter) or re.escape(letter) for letter in given)
        if match := re.fullmatch(pattern, name):
            parts = iter(match.groups())
            return "".join(next(parts) if letter in _PLACEHOLDERS else letter for letter in wanted)
    return None
