"""A small folder of latents in the real format: random tensors that tests can predict, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reprise.storage import Storage
from training.data import random_streams
from training.data.samples import LatentSize
from training.latents.store import (
    EncodedSample,
    LatentInfo,
    LatentsManifest,
    ModelInfo,
    TextInfo,
    finish_latents,
    write_empty,
    write_part,
)
from training.precision import DTYPES

VARIANTS = ("crop", "segment", "inpaint", "redux", "crosspair")


def write_latents(
    root: Path | str,
    clips: int = 24,
    *,
    sizes: Sequence[LatentSize] = ((3, 4, 6), (3, 6, 4), (2, 4, 6)),
    subjects: Sequence[int] = (1, 2, 3),
    variants: Sequence[str] = VARIANTS,
    channels: int = 16,
    text_width: int = 32,
    text_length: int = 16,
    family: str = "wan",
    dtype: str = "fp32",
    per_part: int = 8,
    clips_per_source: int = 2,
    reference_size: tuple[int, int] | None = None,
    reference_sizes: Mapping[str, tuple[int, int]] | None = None,
    **manifest: Any,
) -> Storage:
    """Write a folder of latents of samples `clip-00000`, ... as `reprise encode` would.

    Args:
        root: the folder.
        clips: samples.
        sizes: (T, h, w) in latents; samples take them in turn.
        subjects: of a sample; samples take the numbers in turn.
        variants: each subject has one picture of each.
        channels: of the latents.
        text_width: of the text embeddings.
        text_length: tokens; sample n has 1 + n mod text_length.
        family: of the model that the latents are for.
        dtype: of the tensors, whose values `make_random_tensor` decides.
        per_part: samples in one file.
        clips_per_source: consecutive samples that are clips of one video.
        reference_size: (h, w) in latents of all pictures; None: as large as the video.
        reference_sizes: by variant, in place of `reference_size`.
        manifest: fields of the manifest that differ.
    """
    folder = Storage.from_uri(root)
    rows, samples, buckets = [], [], dict[str, int]()
    for n in range(clips):
        sample_id, (frames, height, width) = f"clip-{n:05d}", sizes[n % len(sizes)]
        count = subjects[n % len(subjects)]
        whole = reference_size or (height, width)
        shapes = [(reference_sizes or {}).get(variant, whole) for variant in variants]
        references = [
            make_random_tensor(sample_id, f"reference/{i}", (channels, *shape), dtype)
            for i, shape in enumerate(shapes * count)
        ]
        described = [
            {
                "subject_id": f"{sample_id}-s{s}",
                "category": "dog",
                "references": [
                    {
                        "reference_id": f"{sample_id}-s{s}-{variant}0",
                        "variant": variant,
                        "position": s * len(variants) + v,
                        "height": shapes[v][0],
                        "width": shapes[v][1],
                    }
                    for v, variant in enumerate(variants)
                ],
            }
            for s in range(count)
        ]
        tokens = 1 + n % text_length
        row = {
            "sample_id": sample_id,
            "source_id": f"video-{n // clips_per_source:05d}",
            "key": f"key-{n}",
            "frames": frames,
            "height": height,
            "width": width,
            "video_frames": 4 * frames - 3,
            "video_height": 8 * height,
            "video_width": 8 * width,
            "fps": 16.0,
            "caption": f"caption {n}",
            "text_tokens": tokens,
            "subjects": described,
            "left_out": [],
        }
        samples.append(
            EncodedSample(
                row,
                make_random_tensor(sample_id, "video", (channels, frames, height, width), dtype),
                make_random_tensor(sample_id, "text", (tokens, text_width), dtype),
                references,
            )
        )
        name = f"{frames}x{height}x{width}"
        buckets[name] = buckets.get(name, 0) + 1
    for start in range(0, clips, per_part):
        rows += write_part(folder, samples[start : start + per_part], "made-up")
    write_empty(folder, make_random_tensor("", "text", (1, text_width), dtype))
    described_by = LatentsManifest(
        fingerprint="made-up",
        model=ModelInfo(path="made-up", family=family, vae="", text_encoder=""),
        latents=LatentInfo(
            dtype=dtype, channels=channels, temporal=4, spatial=8, normalisation="mean_std", posterior="mode"
        ),
        text=TextInfo(length=text_length, width=text_width),
        rows_in=clips,
        encoded=clips,
        buckets=buckets,
    )
    finish_latents(folder, rows, described_by.model_copy(update=manifest))
    return folder


def make_random_tensor(sample_id: str, tensor: str, shape: tuple[int, ...], dtype: str = "fp32") -> Tensor:
    """Draw normal numbers that depend only on the tensor's name, as `write_latents` stores them."""
    generator = random_streams.make_generator(0, "made-up", sample_id, tensor)
    return torch.randn(shape, generator=generator).to(DTYPES[dtype])
