"""The config of `reprise encode`: what decides the latents, and, apart from it, how to run."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

VARIANTS = ("crop", "segment", "inpaint", "redux", "crosspair", "retrieved")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class BucketsConfig(_Section):
    """Sizes that clips are brought to: as many pixels as allowed, in their own aspect ratio."""

    area: int = Field(480 * 832, ge=1, description="most pixels of a frame")
    sizes: tuple[str, ...] | None = Field(
        None, description='["480x832", ...] height x width: these alone; null: all that fill the area'
    )
    frames: tuple[int, ...] | None = Field(
        None, description="numbers of frames; a clip gets the most it can fill; null: the family's"
    )
    fps: float | None = Field(
        None, gt=0, description="frames per second that are taken; null: Wan 16, TI2V 24, CogVideoX 8"
    )
    enlarge: float = Field(
        1.1, ge=1, description="most that a clip is enlarged; a smaller one gets 1/2, 1/4, ... of the area"
    )
    crop: float = Field(
        0.25, ge=0, lt=1, description="most of a frame that may be cut off to reach a size; beyond: dropped"
    )
    slow: float = Field(
        0.1, ge=0, description="a clip with this much fewer frames per second is dropped: it would stutter"
    )
    window: Literal["start", "middle"] = Field("middle", description="which part of a longer clip is taken")

    @field_validator("sizes")
    @classmethod
    def _check_sizes(cls, sizes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for size in sizes or ():
            if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
                raise ValueError(f"{size!r} is no size: write height x width, as in 480x832")
        if sizes is not None and not sizes:
            raise ValueError("no size is named: leave it null for all that fill the area")
        return sizes


class ReferencesConfig(_Section):
    """Pictures of subjects."""

    variants: tuple[str, ...] = Field(VARIANTS, description="which are encoded")
    size: Literal["video", "own"] = Field(
        "video",
        description="video: centred on white, as large as the video (released); own: as large as the picture "
        "itself once it fits, which makes fewer tokens and needs micro_batch 1",
    )
    required: bool = Field(
        True, description="clips without a usable reference are dropped; plain videos never need one"
    )

    @field_validator("variants")
    @classmethod
    def _check_variants(cls, variants: tuple[str, ...]) -> tuple[str, ...]:
        for variant in variants:
            if variant not in VARIANTS:
                raise ValueError(f"no variant {variant!r}: there are {', '.join(VARIANTS)}")
        return variants


class PairsConfig(_Section):
    """Pairs of pictures of one subject: what identity steps of proxy replay learn from."""

    quality: int = Field(
        5, ge=0, le=5, description="least of each of Subjects200K's three scores; its card recommends 5"
    )
    both_ways: bool = Field(True, description="each picture of a pair is the target once, as in OminiControl")
    targets: tuple[str, ...] = Field(
        ("crop", "inpaint", "crosspair", "retrieved"),
        description="of a curated dataset: variants that are a scene, and so can be a target",
    )
    alpha: Literal["optional", "required"] = Field(
        "optional", description="required: a reference without transparency is dropped"
    )
    words: str | None = Field(
        None,
        description='put before captions as ordinary text, as released: "<cls>"; token.kind is words then',
    )


class EngineConfig(_Section):
    """How it runs; never part of what is computed."""

    workers: int | None = Field(None, ge=1, description="null: one per GPU; without GPUs, 1")
    gpus: float = Field(-1, ge=-1, description="per worker; -1: 1 where there are GPUs, else 0")
    cpus: float = Field(1, gt=0, description="per worker: for decoding, and without a GPU for the models")
    part_rows: int = Field(32, ge=1, description="samples per file: the most that a killed worker loses")
    image_batch: int = Field(8, ge=1, description="references encoded at the same time, each by itself")
    ahead: int = Field(2, ge=0, description="clips decoded while another is encoded")
    address: str | None = Field(None, description="Ray address; null: RAY_ADDRESS, else start Ray here")
    progress: bool = True


class EncodeConfig(_Section):
    """Everything that `reprise encode` can be told."""

    buckets: BucketsConfig = BucketsConfig()
    references: ReferencesConfig = ReferencesConfig()
    pairs: PairsConfig = PairsConfig()
    frames_alone: int = Field(
        0, ge=0, description="frames of each clip that are also encoded alone, evenly spread: for replay"
    )
    captions: Literal["required", "optional"] = Field(
        "required", description="optional: a clip without one gets the empty caption"
    )
    posterior: Literal["auto", "mode", "sample"] = Field(
        "auto", description="of the VAE; auto: mode for Wan (released), sample for CogVideoX"
    )
    dtype: Literal["bf16", "fp32"] = Field("bf16", description="of what is stored")
    vae_dtype: Literal["bf16", "fp32"] = Field("fp32", description="of the VAE's computation")
    text_dtype: Literal["bf16", "fp32"] = Field("bf16", description="of the text encoder's")
    seed: int = Field(0, description="of posterior samples")
    engine: EngineConfig = EngineConfig()

    def dump_content(self) -> dict[str, object]:
        """What decides the latents."""
        return self.model_dump(mode="json", exclude={"engine"})
