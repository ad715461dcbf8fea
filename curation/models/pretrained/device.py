"""The device of a model, its number format, and its batches."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from curation.model_spec import ModelSpec
from reprise.errors import RepriseError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class ComputeTarget:
    """A device, and the `dtype` in which the main part of a model computes."""

    device: torch.device
    dtype: torch.dtype

    def enter_autocast(self) -> contextlib.AbstractContextManager[object]:
        """Compute in `dtype` while weights stay in float32; a no-op if `dtype` is float32.

        It is for models that return coordinates. With weights in bfloat16 a coordinate of 1,000 px is rounded
        to 4 px; autocast keeps the sums that form coordinates in float32.
        """
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def choose_target(spec: ModelSpec) -> ComputeTarget:
    """Choose device and dtype of a spec: auto is bfloat16 on CUDA if available, else float32 on the CPU.

    Raises:
        RepriseError: the device or the dtype is unknown, or this machine does not have it.
    """
    has_cuda = torch.cuda.is_available()
    name = spec.device if spec.device != "auto" else ("cuda" if has_cuda else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RepriseError(f"models: {spec.backend}: unknown device {name}; use auto, cpu or cuda") from error
    if device.type == "cuda" and not has_cuda:
        raise RepriseError(f"models: {spec.backend} needs device {name}, but PyTorch finds no GPU here")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RepriseError(
            f"models: {spec.backend} needs device {name}, but there are {torch.cuda.device_count()} GPUs here"
        )
    if spec.dtype == "auto":
        return ComputeTarget(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    if spec.dtype not in DTYPES:
        raise RepriseError(
            f"models: {spec.backend}: unknown dtype {spec.dtype}; known: auto, {', '.join(DTYPES)}"
        )
    return ComputeTarget(device, DTYPES[spec.dtype])


class BatchRunner:
    """Runs items in batches, and remembers the batch size that fits the memory."""

    def __init__(self, size: int) -> None:
        self.size = max(1, size)

    def __call__(
        self, items: Sequence[Item], run: Callable[[Sequence[Item]], Sequence[Result]]
    ) -> list[Result]:
        """Return one result per item, in order. `run` gets at most `size` items at a time, without gradients.

        A batch that does not fit the GPU's memory is halved and tried again, and later batches keep the
        smaller size. Other errors are not caught.

        Raises:
            RepriseError: a single item does not fit.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            done = self._try_batch(batch, run)
            if done is None:
                # This runs after the except block, whose traceback would keep the tensors in memory.
                _free_gpu_memory()
                if len(batch) == 1:
                    raise RepriseError(
                        "the GPU is out of memory with a single item: use smaller pictures, "
                        "a smaller checkpoint or dtype, or fewer workers per GPU"
                    )
                self.size = (len(batch) + 1) // 2
                log.warning("out of GPU memory on a batch of %d: continuing with %d", len(batch), self.size)
                continue
            if len(done) != len(batch):
                raise ValueError(f"{len(batch)} items gave {len(done)} results")
            results.extend(done)
        return results

    @staticmethod
    def _try_batch(
        batch: Sequence[Item], run: Callable[[Sequence[Item]], Sequence[Result]]
    ) -> Sequence[Result] | None:
        try:
            with torch.inference_mode():
                return run(batch)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            return None


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means out of device memory, also as cuBLAS, cuDNN and the driver report it."""
    message = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in message for sign in ("CUDA out of memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    )


def _free_gpu_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
