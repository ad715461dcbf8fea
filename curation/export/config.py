"""The settings of an export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from reprise.settings import SettingsSection

# Kaleido A.1 draws crop : segment : inpaint : redux = 1 : 5 : 3 : 1. Cross-pairs are 0.4 of all pictures.
KALEIDO_SHARES = {"crop": 1.0, "segment": 5.0, "inpaint": 3.0, "redux": 1.0, "crosspair": 20 / 3}


class ExportReferencesConfig(SettingsSection):
    """Which pictures of a subject are exported, and how they are written."""

    shares: dict[str, float] = Field(
        KALEIDO_SHARES,
        description="variant -> its weight in the draw among the variants that a subject has; Kaleido A.1",
    )
    per_subject: int = Field(
        1, ge=1, le=8, description="pictures per subject; different variants are drawn first"
    )
    max_per_clip: int | None = Field(
        None, ge=1, description="pictures per clip; null: the limit of the target"
    )
    background: Literal["white", "grey", "transparent", "as-is"] | None = Field(
        None, description="background behind cut-outs; null: the target's default"
    )
    format: Literal["png", "jpeg"] | None = Field(
        None, description="picture format; null: the target's default"
    )
    required: bool | None = Field(
        None, description="leave out clips without a reference; null: only if the target needs one"
    )

    @field_validator("shares")
    @classmethod
    def _check_shares(cls, shares: dict[str, float]) -> dict[str, float]:
        if any(share < 0 for share in shares.values()) or not any(shares.values()):
            raise ValueError("shares must be at least 0, and one of them above 0")
        return shares


class VideoConfig(SettingsSection):
    """How a clip is encoded if the target cannot use the file unchanged. Null: the target's default."""

    fps: float | None = Field(None, gt=0, description="frames per second")
    max_frames: int | None = Field(
        None, ge=1, description="frames; a longer clip keeps the frames around its middle"
    )
    max_area: int | None = Field(None, ge=4096, description="px; a larger clip is scaled down")
    link: bool = Field(
        True, description="hard-link clips that are exported unchanged, if the file system allows it"
    )
    crf: int = Field(18, ge=0, le=51, description="x264 quality of a clip that is encoded again")
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
    ] = Field("veryfast", description="x264 preset of a clip that is encoded again")


class CaptionsConfig(SettingsSection):
    """How a caption refers to references."""

    tag: str | None = Field(
        None,
        description="replaces the phrase of each subject with a reference, for example "
        "'{phrase} [{number}]'; null: captions do not change",
    )

    @field_validator("tag")
    @classmethod
    def _check_tag(cls, tag: str | None) -> str | None:
        if tag is not None:
            try:
                tag.format(phrase="cat", number=1)
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError("a tag can have only {phrase} and {number} in braces") from error
        return tag


class ExportEngineConfig(SettingsSection):
    """Where an export runs. The written files do not depend on these settings."""

    address: str | None = Field(None, description="Ray address; null: RAY_ADDRESS, else start Ray here")
    unit_clips: int = Field(
        64, ge=1, description="clips per task, and per shard of targets that write shards"
    )
    progress: bool = Field(True, description="show a progress bar")


class ExportConfig(SettingsSection):
    """All settings of an export."""

    where: str | None = Field(
        None,
        description="condition on clips in DuckDB's SQL, e.g. \"width >= 720 AND caption LIKE '%dog%'\"",
    )
    where_subject: str | None = Field(
        None, description="condition on subjects, e.g. \"category = 'dog' AND scores.sharpness > 100\""
    )
    licenses: list[str] | None = Field(None, description="export only clips with one of these licences")
    exclude_licenses: list[str] = Field([], description="export no clip with one of these licences")
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of source videos whose clips form the validation split"
    )
    max_subjects: int | None = Field(
        None, ge=1, description="subjects per clip; null: the limit of the target"
    )
    seed: int = Field(0, description="seed of every draw, combined with ids")
    references: ExportReferencesConfig = ExportReferencesConfig()
    video: VideoConfig = VideoConfig()
    captions: CaptionsConfig = CaptionsConfig()
    engine: ExportEngineConfig = ExportEngineConfig()
