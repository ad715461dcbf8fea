"""The config of `reprise encode`: what determines the latents, and, separately, how to run."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from reprise.settings import SettingsSection

VARIANTS = ("crop", "segment", "inpaint", "redux", "crosspair", "retrieved")


class BucketsConfig(SettingsSection):
    """Sizes of encoded clips: as many pixels as allowed, at about the aspect ratio of the clip."""

    area: int = Field(480 * 832, ge=1, description="maximum number of pixels of a frame")
    sizes: tuple[str, ...] | None = Field(
        None,
        description='["480x832", ...] height x width: only these sizes; null: all sizes that fill the area',
    )
    frames: tuple[int, ...] | None = Field(
        None, description="numbers of frames; a clip gets the largest that it has; null: those of the family"
    )
    fps: float | None = Field(
        None, gt=0, description="frames per second of encoded clips; null: Wan 16, TI2V 24, CogVideoX 8"
    )
    enlarge: float = Field(
        1.1, ge=1, description="maximum enlargement of a clip; a smaller clip gets 1/2, 1/4, ... of the area"
    )
    crop: float = Field(
        0.25, ge=0, lt=1, description="maximum share of a frame to crop to reach a size; above it: dropped"
    )
    slow: float = Field(
        0.1, ge=0, description="a clip whose frame rate is lower than fps by more than this share is dropped"
    )
    window: Literal["start", "middle"] = Field("middle", description="the part of a longer clip to encode")

    @field_validator("sizes")
    @classmethod
    def _check_sizes(cls, sizes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for size in sizes or ():
            if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
                raise ValueError(f"{size!r} is no size: write height x width, as in 480x832")
        if sizes is not None and not sizes:
            raise ValueError("the list is empty: set it to null for all sizes that fill the area")
        return sizes


class EncodeReferencesConfig(SettingsSection):
    """Pictures of subjects."""

    variants: tuple[str, ...] = Field(VARIANTS, description="variants to encode")
    size: Literal["video", "own"] = Field(
        "video",
        description="video: centred on white, of the video's size (as released); own: of the picture's size "
        "after it is fitted into the video, which gives fewer tokens and needs micro_batch 1",
    )
    required: bool = Field(
        True, description="drop clips without a usable reference; plain videos never need one"
    )

    @field_validator("variants")
    @classmethod
    def _check_variants(cls, variants: tuple[str, ...]) -> tuple[str, ...]:
        for variant in variants:
            if variant not in VARIANTS:
                raise ValueError(f"no variant {variant!r}: there are {', '.join(VARIANTS)}")
        return variants


class PairsConfig(SettingsSection):
    """Pairs of pictures of one subject: the data of the identity steps of proxy replay."""

    quality: int = Field(
        5,
        ge=0,
        le=5,
        description="minimum of each of the three scores of Subjects200K; its card recommends 5",
    )
    both_ways: bool = Field(True, description="each picture of a pair is the target once, as in OminiControl")
    targets: tuple[str, ...] = Field(
        ("crop", "inpaint", "crosspair", "retrieved"),
        description="variants of a curated dataset that can be a target, because they show a scene",
    )
    alpha: Literal["optional", "required"] = Field(
        "optional", description="required: drop a reference without transparency"
    )
    words: str | None = Field(
        None,
        description='text before every caption; released: "<cls>"; then set token.kind=words in training',
    )


class EncodeEngineConfig(SettingsSection):
    """How to run. These settings do not change the latents."""

    workers: int | None = Field(None, ge=1, description="null: one per GPU; without GPUs, 1")
    gpus: float = Field(-1, ge=-1, description="per worker; -1: 1 where there are GPUs, else 0")
    cpus: float = Field(1, gt=0, description="per worker: for decoding, and without a GPU for the models")
    part_rows: int = Field(32, ge=1, description="samples per file, and the most that a killed worker loses")
    image_batch: int = Field(
        8, ge=1, description="references in one batch of the VAE, each a video of its own"
    )
    ahead: int = Field(2, ge=0, description="clips to decode while another is encoded")
    address: str | None = Field(None, description="Ray address; null: RAY_ADDRESS, else start Ray here")
    progress: bool = True


class EncodeConfig(SettingsSection):
    """All settings of `reprise encode`."""

    buckets: BucketsConfig = BucketsConfig()
    references: EncodeReferencesConfig = EncodeReferencesConfig()
    pairs: PairsConfig = PairsConfig()
    frames_alone: int = Field(
        0, ge=0, description="evenly spaced frames of each clip that are also encoded as pictures, for replay"
    )
    captions: Literal["required", "optional"] = Field(
        "required", description="optional: a clip without a caption gets the empty caption"
    )
    posterior: Literal["auto", "mode", "sample"] = Field(
        "auto",
        description="value of the VAE's posterior; auto: mode for Wan (released), sample for CogVideoX",
    )
    dtype: Literal["bf16", "fp32"] = Field("bf16", description="data type of stored latents and embeddings")
    vae_dtype: Literal["bf16", "fp32"] = Field("fp32", description="data type in which the VAE computes")
    text_dtype: Literal["bf16", "fp32"] = Field(
        "bf16", description="data type in which the text encoder computes"
    )
    seed: int = Field(0, description="seed of posterior samples")
    engine: EncodeEngineConfig = EncodeEngineConfig()

    def dump_content(self) -> dict[str, object]:
        """Return the settings that determine the latents, as plain values."""
        return self.model_dump(mode="json", exclude={"engine"})
