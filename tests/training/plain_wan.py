"""Wan with references, a second time: plain float64, token by token, nothing of diffusers or of ours.

Slow and short, to be read beside the papers. Weights have Wan's original names. It makes the recordings in
golden/ (run this file) and defines the positions, so that the suite proves something without other
recordings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

FILE = Path(__file__).parent / "golden" / "wan_references.safetensors"
CONFIG = {"hidden": 24, "heads": 2, "layers": 2, "ffn": 40, "text": 8, "freq": 16, "channels": 4}
# scheme, shift, place -> first position of reference i of n, for a video of T x H x W patches
CASES: dict[str, Callable[[int, int, int, int, int], tuple[int, int, int]]] = {
    "none,fixed_80,before": lambda i, n, T, H, W: (i, 0, 0),
    "none,fixed_80,after": lambda i, n, T, H, W: (T + i, 0, 0),
    "shift_w,fixed_80,before": lambda i, n, T, H, W: (i, 0, 80),
    "shift_h,fixed_80,before": lambda i, n, T, H, W: (i, 80, 0),
    "shift_hw,fixed_80,before": lambda i, n, T, H, W: (i, 80, 80),
    "shift_hw,fixed_80,after": lambda i, n, T, H, W: (T + i, 80, 80),
    "shift_hw,video,before": lambda i, n, T, H, W: (i, H, W),
    "no_overlap,fixed_80,before": lambda i, n, T, H, W: (i, 80 * i + 80, 80 * i + 80),
    "no_overlap,video,before": lambda i, n, T, H, W: (i, H * i + H, W * i + W),
    "negative_staggered,fixed_80,before": lambda i, n, T, H, W: (i - n, 0, 0),
    "negative_fixed,fixed_80,before": lambda i, n, T, H, W: (-1, 0, 0),
    "future,fixed_80,before": lambda i, n, T, H, W: (T + i, 0, 0),
}


def forward(
    weights: dict[str, Tensor],
    heads: int,
    segments: Sequence[Tensor],
    positions: Sequence[tuple[int, int, int]],
    video: int,
    text: Tensor,
    timestep: float,
) -> Tensor:
    """segments: (C, T, h, w) each, in sequence order; positions: one per token; `video`: an index."""
    w = {name: tensor.double() for name, tensor in weights.items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    tokens = torch.stack([linear_patch(w, cell) for part in segments for cell in cells(part.double())])
    half = CONFIG["freq"] // 2
    angles = [timestep * 10_000.0 ** (-k / half) for k in range(half)]
    wave = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64)
    time = linear("time_embedding.2", F.silu(linear("time_embedding.0", wave)))
    six = linear("time_projection.1", F.silu(time)).reshape(6, -1)
    inner = F.gelu(linear("text_embedding.0", text.double()), approximate="tanh")
    context = linear("text_embedding.2", inner)
    turns = turn(positions, tokens.shape[1] // heads)
    for i in range(CONFIG["layers"]):
        block = f"blocks.{i}"
        shift, scale, gate, shift_ff, scale_ff, gate_ff = w[f"{block}.modulation"][0] + six
        x = norm(tokens) * (1 + scale) + shift
        tokens = tokens + gate * attention(w, f"{block}.self_attn", x, x, heads, turns)
        x = norm(tokens) * w[f"{block}.norm3.weight"] + w[f"{block}.norm3.bias"]
        tokens = tokens + attention(w, f"{block}.cross_attn", x, context, heads, None)
        x = norm(tokens) * (1 + scale_ff) + shift_ff
        inner = F.gelu(linear(f"{block}.ffn.0", x), approximate="tanh")
        tokens = tokens + gate_ff * linear(f"{block}.ffn.2", inner)
    shift, scale = w["head.modulation"][0] + time
    outputs = linear("head.head", norm(tokens) * (1 + scale) + shift)
    first = sum(len(cells(part)) for part in segments[:video])
    count = len(cells(segments[video]))
    return put_back(outputs[first : first + count], segments[video].shape)


def attention(
    w: dict[str, Tensor], name: str, x: Tensor, y: Tensor, heads: int, turns: Tensor | None
) -> Tensor:
    def project(part: str, z: Tensor) -> Tensor:
        return z @ w[f"{name}.{part}.weight"].T + w[f"{name}.{part}.bias"]

    def rms(part: str, z: Tensor) -> Tensor:
        return z / (z.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.norm_{part}.weight"]

    q, k, v = rms("q", project("q", x)), rms("k", project("k", y)), project("v", y)
    out = []
    for q_h, k_h, v_h in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        if turns is not None:
            q_h, k_h = rotate(q_h, turns), rotate(k_h, turns)
        out.append((q_h @ k_h.T / math.sqrt(q_h.shape[-1])).softmax(-1) @ v_h)
    return project("o", torch.cat(out, -1))


def turn(positions: Sequence[tuple[int, int, int]], head: int) -> Tensor:
    """One complex number of modulus 1 per token and pair of channels."""
    spatial = 2 * (head // 6)
    split = (head - 2 * spatial, spatial, spatial)
    angles = []
    for position in positions:
        turned = zip(position, split, strict=True)
        angles.append([p * 10_000.0 ** (-2 * k / d) for p, d in turned for k in range(d // 2)])
    return torch.polar(torch.ones(len(angles), head // 2, dtype=torch.float64), torch.tensor(angles).double())


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(x.reshape(len(x), -1, 2)) * turns).reshape(x.shape)


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def cells(part: Tensor) -> list[Tensor]:
    """The 2 x 2 patches (C, 2, 2) of (C, T, h, w), in (t, h, w) order."""
    _, frames, height, width = part.shape
    return [
        part[:, t, y : y + 2, x : x + 2]
        for t in range(frames)
        for y in range(0, height, 2)
        for x in range(0, width, 2)
    ]


def linear_patch(w: dict[str, Tensor], cell: Tensor) -> Tensor:
    return (w["patch_embedding.weight"][:, :, 0] * cell).sum((1, 2, 3)) + w["patch_embedding.bias"]


def put_back(outputs: Tensor, shape: Sequence[int]) -> Tensor:
    """Each token's vector is ordered (patch row, patch column, channel), channel fastest."""
    video = torch.zeros(tuple(shape), dtype=torch.float64)
    for cell, output in zip(cells(video), outputs, strict=True):  # cells are views
        cell.copy_(output.reshape(2, 2, -1).permute(2, 0, 1))
    return video


def grid(shape: Sequence[int], start: tuple[int, int, int] = (0, 0, 0)) -> list[tuple[int, int, int]]:
    _, frames, height, width = shape
    t0, y0, x0 = start
    return [
        (t0 + t, y0 + y, x0 + x) for t in range(frames) for y in range(height // 2) for x in range(width // 2)
    ]


def case(name: str, video: Tensor, references: Sequence[Tensor]) -> tuple[list[Tensor], list[Any], int]:
    """Segments in sequence order, their tokens' positions, and which is the video."""
    size = video.shape[1], video.shape[2] // 2, video.shape[3] // 2
    starts = [CASES[name](i, len(references), *size) for i in range(len(references))]
    placed = [grid(part.shape, start) for part, start in zip(references, starts, strict=True)]
    if name.endswith("after"):
        return [video, *references], [*grid(video.shape), *chain(*placed)], 0
    return [*references, video], [*chain(*placed), *grid(video.shape)], len(references)


def random_weights(generator: torch.Generator) -> dict[str, Tensor]:
    h, c = CONFIG["hidden"], CONFIG["channels"]
    shapes: dict[str, tuple[int, ...]] = {"patch_embedding": (h, c, 1, 2, 2), "head.head": (4 * c, h)}
    shapes |= {"text_embedding.0": (h, CONFIG["text"]), "text_embedding.2": (h, h)}
    shapes |= {"time_embedding.0": (h, CONFIG["freq"]), "time_embedding.2": (h, h)}
    shapes |= {"time_projection.1": (6 * h, h)}
    plain: dict[str, tuple[int, ...]] = {"head.modulation": (1, 2, h)}
    for i in range(CONFIG["layers"]):
        for kind in ("self_attn", "cross_attn"):
            shapes |= {f"blocks.{i}.{kind}.{part}": (h, h) for part in "qkvo"}
            plain |= {f"blocks.{i}.{kind}.norm_{part}.weight": (h,) for part in "qk"}
        shapes |= {f"blocks.{i}.ffn.0": (CONFIG["ffn"], h), f"blocks.{i}.ffn.2": (h, CONFIG["ffn"])}
        plain |= {f"blocks.{i}.norm3.weight": (h,), f"blocks.{i}.norm3.bias": (h,)}
        plain |= {f"blocks.{i}.modulation": (1, 6, h)}
    weights = {}
    for name, shape in shapes.items():
        fan = math.prod(shape[1:])
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan)
        weights[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    for name, shape in plain.items():
        middle = 1.0 if "norm" in name and "bias" not in name else 0.0
        weights[name] = middle + 0.3 * torch.randn(shape, generator=generator)
    return weights


def record() -> None:
    generator = torch.Generator().manual_seed(20_260)
    weights = random_weights(generator)
    c = CONFIG["channels"]
    inputs = {
        "video": torch.randn(c, 3, 6, 8, generator=generator),
        "reference0": torch.randn(c, 1, 6, 8, generator=generator),
        "reference1": torch.randn(c, 1, 4, 2, generator=generator),
        "text": torch.randn(5, CONFIG["text"], generator=generator),
        "timestep": torch.tensor(417.25),
    }
    outputs = {}
    for name in CASES:
        segments, positions, which = case(name, inputs["video"], [inputs["reference0"], inputs["reference1"]])
        output = forward(
            weights, CONFIG["heads"], segments, positions, which, inputs["text"], float(inputs["timestep"])
        )
        outputs[f"out.{name}"] = output.float()
        outputs[f"positions.{name}"] = torch.tensor(positions)
    tensors = {f"weights.{name}": tensor for name, tensor in weights.items()} | inputs | outputs
    FILE.parent.mkdir(exist_ok=True)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, FILE, {"config": json.dumps(CONFIG)})


if __name__ == "__main__":
    record()
