"""RAFT of torchvision, small or large, from a local state dict."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import find_weight_file, resolve_checkpoint
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import read_options
from reprise.errors import RepriseError

_MULTIPLE = 8  # RAFT works at an eighth of the resolution
_MIN_SIDE = 128  # its correlation pyramid has four levels; torchvision raises for smaller pictures


@dataclass(frozen=True)
class _ImagePair:
    """Two padded pictures (3, h', w') float32, -1..1, and their size without padding."""

    before: torch.Tensor
    after: torch.Tensor
    height: int
    width: int


class RaftFlow:
    """roles.FlowEstimator. Option `updates`: refinement steps, 12 as torchvision's default.

    The keys of a state dict show whether it is RAFT-small or RAFT-large. `dtype: auto` means float32 here,
    also on a GPU, because bfloat16 rounds a flow of 100 px to half a pixel.
    """

    name = "raft"

    def __init__(self, spec: ModelSpec) -> None:
        """Load the state dict.

        Raises:
            RepriseError: the file is not here, damaged, or no RAFT of torchvision.
        """
        from torchvision.models.optical_flow import raft_large, raft_small

        self._updates = int(read_options(spec, updates=12)["updates"])
        if self._updates < 1:
            raise RepriseError("models: raft option updates must be at least 1")
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        found = choose_target(spec)
        self._device = found.device
        self._dtype = torch.float32 if spec.dtype == "auto" else found.dtype
        file = find_weight_file(checkpoint.path)
        state = _load_state_dict(file)
        large = any(key.startswith("mask_predictor.") for key in state)
        model: Any = (raft_large if large else raft_small)(weights=None)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise RepriseError(
                f"{file} is a checkpoint of another model than RAFT: {' '.join(str(error).split())[:200]}"
            ) from error
        self.variant = "large" if large else "small"
        self._model = model.to(self._device, self._dtype).eval()
        self._batches = BatchRunner(spec.batch_size)

    def estimate_flow(self, before: Sequence[RGB], after: Sequence[RGB]) -> list[NDArray[np.float32]]:
        """Return for each pair of pictures the displacement of each pixel of `before`, (H, W, 2): (x, y), px.

        Pairs of different sizes may be mixed.

        Raises:
            ValueError: the pictures of a pair differ in size.
        """
        pairs = [_make_pair(first, second) for first, second in zip(before, after, strict=True)]
        # Pairs of one padded size run together, in the order of the first of them.
        sizes: dict[torch.Size, list[int]] = {}
        for position, pair in enumerate(pairs):
            sizes.setdefault(pair.before.shape, []).append(position)
        flows: dict[int, NDArray[np.float32]] = {}
        for positions in sizes.values():
            found = self._batches([pairs[position] for position in positions], self._run_batch)
            flows.update(zip(positions, found, strict=True))
        return [flows[position] for position in range(len(pairs))]

    def _run_batch(self, pairs: Sequence[_ImagePair]) -> list[NDArray[np.float32]]:
        before = torch.stack([pair.before for pair in pairs]).to(self._device, self._dtype)
        after = torch.stack([pair.after for pair in pairs]).to(self._device, self._dtype)
        last = self._model(before, after, num_flow_updates=self._updates)[-1]
        found = last.float().permute(0, 2, 3, 1).cpu().numpy()
        return [
            np.ascontiguousarray(flow[: pair.height, : pair.width])
            for flow, pair in zip(found, pairs, strict=True)
        ]


def _make_pair(before: RGB, after: RGB) -> _ImagePair:
    if before.shape != after.shape:
        raise ValueError(f"a pair of pictures of different sizes: {before.shape} and {after.shape}")
    height, width = before.shape[:2]
    return _ImagePair(_pad_image(before), _pad_image(after), height, width)


def _pad_image(image: RGB) -> torch.Tensor:
    """Convert (h, w, 3) uint8 to (3, h', w'), -1..1, padded to a size that RAFT accepts.

    The right and bottom edges are repeated. There is no padding on the other sides, so pixels keep their
    coordinates.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 127.5 - 1
    height, width = image.shape[:2]
    down, right = _get_padding(height), _get_padding(width)
    if not (down or right):
        return pixels
    return functional.pad(pixels[None], (0, right, 0, down), mode="replicate")[0]


def _get_padding(side: int) -> int:
    return max(_MIN_SIDE, -(-side // _MULTIPLE) * _MULTIPLE) - side


def _load_state_dict(file: Any) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise RepriseError(
            f"{file} cannot be read as a state dict: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(state, dict):
        raise RepriseError(f"{file} holds a {type(state).__name__}, not a state dict")
    # princeton-vl saves DataParallel models. Their layers have other names, so the prefix does not matter.
    return {str(key).removeprefix("module."): value for key, value in state.items()}
