"""What a GPU has: its memory, and its peak as its maker states it (dense bf16 products, float32 sums)."""

from __future__ import annotations

import re

import torch

# Name as CUDA gives it -> FLOP/s. The first match is used, so a variant comes before its base name.
# Sources: NVIDIA's data sheets, without sparsity; GeForce: the Ada and Ampere white papers, float32 sums.
PEAK_FLOPS: tuple[tuple[str, float], ...] = (
    (r"\bGB?300\b|\bB300\b", 2_250e12),
    (r"\bGB200\b", 2_500e12),
    (r"\bB200\b", 2_250e12),
    (r"\bH100\b.*PCIe", 756e12),
    (r"\bH100\b.*NVL", 835e12),
    (r"\bH[12]00\b|\bGH200\b", 989e12),
    (r"\bH800\b", 989e12),
    (r"\bH20\b", 148e12),
    (r"\bA100\b|\bA800\b", 312e12),
    (r"\bL40S\b", 362e12),
    (r"\bL40\b", 181e12),
    (r"\bL4\b", 121e12),
    (r"\bA40\b", 150e12),
    (r"\bA10G?\b", 125e12),
    (r"\bA6000\b", 155e12),
    (r"\b6000 Ada\b", 364e12),
    (r"\b5090\b", 210e12),
    (r"\b4090\b", 165e12),
    (r"\b4080\b", 97e12),
    (r"\b3090\b", 71e12),
)


def get_peak_flops(name: str) -> float | None:
    """FLOP/s of one device by its name, such as "NVIDIA H100 80GB HBM3"; None where it is not known."""
    return next((peak for pattern, peak in PEAK_FLOPS if re.search(pattern, name, re.IGNORECASE)), None)


def get_gpu_memory() -> int | None:
    """Return the memory of this machine's first GPU in bytes; None if there is no GPU."""
    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None
