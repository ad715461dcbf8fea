"""The VAE and the text encoder of a model: read configs, hash files, encode pixels and captions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reprise.errors import RepriseError
from training.data import random_streams
from training.latents.buckets import SizeGrid
from training.latents.config import EncodeConfig
from training.latents.store import LatentInfo, TextInfo
from training.models.build import FAMILIES
from training.models.components import (
    find_config,
    load_text_encoder,
    load_vae,
    locate_part,
    read_config,
    read_tokenizer_limit,
)
from training.models.vae import normalise_latents
from training.models.video_size import get_vae_scales
from training.precision import DTYPES

_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class ModelFacts:
    """What the configs of a model folder give. No weights are read for it."""

    path: str
    revision: str | None
    family: str
    grid: SizeGrid
    latents: LatentInfo
    text: TextInfo


def read_model_facts(path: str, revision: str | None, config: EncodeConfig) -> ModelFacts:
    """Read the configs of a diffusers pipeline folder or hub id.

    Raises:
        RepriseError: a part is missing, or its family is unknown.
    """
    vae = read_config(path, revision, "vae")
    text = read_config(path, revision, "text_encoder")
    transformer = find_config(path, revision, "transformer") or {}  # optional
    family = _detect_family(path, str(transformer.get("_class_name", "")), str(vae.get("_class_name", "")))
    temporal, spatial = get_vae_scales(vae)
    patch = transformer.get("patch_size", 2)
    patch = int(patch if isinstance(patch, int) else patch[-1])
    posterior = config.posterior
    if posterior == "auto":
        posterior = "sample" if FAMILIES[family].samples_posterior else "mode"
    latents = LatentInfo(
        dtype=config.dtype,
        channels=int(vae.get("z_dim") or vae.get("latent_channels") or 16),
        temporal=temporal,
        spatial=spatial,
        normalisation="mean_std" if vae.get("latents_mean") else "scaling_factor",
        posterior=posterior,
    )
    width = text.get("d_model") or text.get("hidden_size") or 0
    length = FAMILIES[family]().get_text_length(transformer, read_tokenizer_limit(path, revision))
    return ModelFacts(
        path,
        revision,
        family,
        SizeGrid(spatial * patch, temporal),
        latents,
        TextInfo(length=length, width=width),
    )


def _detect_family(path: str, *classes: str) -> str:
    for name in classes:
        for family in FAMILIES:
            if family in name.lower():
                return family
    raise RepriseError(
        f"{path} is of no family known here (Wan, CogVideoX): its parts are {', '.join(classes)}"
    )


def hash_model_parts(path: str, revision: str | None, *parts: str) -> str:
    """Compute one sha256 of the contents of some parts of a model, tensors and configs.

    The digest does not depend on how tensors are split over files: a VAE that was loaded and saved again has
    the same digest. The name of a file in a hub cache is its sha256, so such a file is not read.

    Raises:
        RepriseError: a part is missing, or a file is truncated.
    """
    with ThreadPoolExecutor(4) as pool:
        found = []
        for part in parts:
            folder = locate_part(path, revision, part)
            if folder is None:
                raise RepriseError(
                    f"{path} has no {part}/; a diffusers pipeline folder of the model is needed"
                )
            files = sorted(f for f in folder.iterdir() if f.is_file() and f.suffix in _CONTENT_SUFFIXES)
            for facts in pool.map(_hash_file, files):
                found += [f"{part} {fact}" for fact in facts]
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


_CONTENT_SUFFIXES = (".json", ".safetensors", ".bin", ".model", ".txt", ".pt", ".pth")


def _hash_file(file: Path) -> list[str]:
    if file.name.endswith(".index.json"):
        return []  # it only maps tensors to files
    if file.suffix == ".json":
        data = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(data, dict):
            # The version of the library that saved the config does not change the latents.
            data = {k: v for k, v in data.items() if not k.startswith("_") and k not in _INCIDENTAL_KEYS}
        return [f"{file.name} {hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()}"]
    if file.suffix == ".safetensors":
        return list(_hash_tensors(file))
    blob = file.resolve().name
    if file.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
        return [f"{file.name} {blob}"]
    with file.open("rb") as opened:
        return [f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}"]


_INCIDENTAL_KEYS = ("transformers_version", "torch_dtype", "dtype", "name_or_path")


def _hash_tensors(file: Path) -> list[str]:
    """Return name, type, shape and sha256 of each tensor of a safetensors file."""
    facts = []
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            opened.seek(8 + size + begin)
            content, left = hashlib.sha256(), end - begin
            while left:
                chunk = opened.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise RepriseError(f"{file} is cut short: fetch the model again")
                content.update(chunk)
                left -= len(chunk)
            facts.append(f"{name} {tensor['dtype']} {tensor['shape']} {content.hexdigest()}")
    return facts


class Encoders:
    """The VAE and the text encoder on a device, loaded once per worker.

    Raises:
        RepriseError: a part cannot be loaded.
    """

    def __init__(
        self, facts: ModelFacts, config: EncodeConfig, device: torch.device | str | None = None
    ) -> None:
        self.facts, self.config = facts, config
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        vae_dtype, text_dtype = DTYPES[config.vae_dtype], DTYPES[config.text_dtype]
        self.vae = load_vae(facts.path, facts.revision, vae_dtype, self.device).requires_grad_(False)
        self.text_encoder, self.tokenizer = load_text_encoder(
            facts.path, facts.revision, text_dtype, self.device
        )
        self.text_encoder.requires_grad_(False)

    def encode_video(self, frames: NDArray[np.uint8], key: str) -> Tensor:
        """Encode frames (T, H, W, 3) RGB to normalised latents (C, t, h, w) on the CPU.

        `key` and the config's seed determine the posterior sample.
        """
        pixels = torch.from_numpy(frames).to(self.device).permute(3, 0, 1, 2)
        return self._encode_pixels((pixels.to(self.vae.dtype) / 127.5 - 1.0).unsqueeze(0), [key])[0]

    def encode_pictures(self, pictures: Sequence[Tensor], keys: Sequence[str]) -> list[Tensor]:
        """Encode pictures, each (3, H, W) in [-1, 1], to latents, each (C, h, w).

        Each picture is encoded as a video of one frame. Pictures of one size form a batch. They are never
        frames of one clip, because the causal VAE merges up to four frames into one latent.
        """
        made: dict[int, Tensor] = {}
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for n, picture in enumerate(pictures):
            by_shape.setdefault(tuple(picture.shape), []).append(n)
        for numbers in by_shape.values():
            for start in range(0, len(numbers), self.config.engine.image_batch):
                some = numbers[start : start + self.config.engine.image_batch]
                pixels = torch.stack([pictures[n] for n in some]).to(self.device, self.vae.dtype).unsqueeze(2)
                latents = self._encode_pixels(pixels, [keys[n] for n in some])
                made.update(zip(some, latents[:, :, 0], strict=True))
        return [made[n] for n in range(len(pictures))]

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Encode each caption to an embedding (L, D) on the CPU."""
        found = FAMILIES[self.facts.family]().embed_captions(
            captions, self.text_encoder, self.tokenizer, self.facts.text.length
        )
        return [text.to("cpu", DTYPES[self.config.dtype]) for text in found]

    def _encode_pixels(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Encode pixels (B, 3, T, H, W) in [-1, 1] to normalised latents (B, C, t, h, w)."""
        with torch.no_grad():
            posterior = self.vae.encode(pixels).latent_dist
        if self.facts.latents.posterior == "sample":
            latents = posterior.mean.float()
            noise = [
                torch.randn(
                    latents.shape[1:],
                    generator=random_streams.make_generator(self.config.seed, "posterior", key),
                )
                for key in keys
            ]
            latents = latents + posterior.std.float() * torch.stack(noise).to(latents.device)
        else:
            latents = posterior.mode().float()
        return normalise_latents(latents, self.vae.config).to("cpu", DTYPES[self.config.dtype])
