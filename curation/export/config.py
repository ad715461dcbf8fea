"""The settings of an export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from reprise.settings import SettingsSection

# Kaleido A.1 draws crop : segment : inpaint : redux = 1 : 5 : 3 : 1, and 0.4 of all from cross-pairs.
KALEIDO_SHARES = {"crop": 1.0, "segment": 5.0, "inpaint": 3.0, "redux": 1.0, "crosspair": 20 / 3}


class ExportReferencesConfig(SettingsSection):
    """Which pictures of a subject go, and how they are written."""

    shares: dict[str, float] = Field(
        KALEIDO_SHARES,
        description="variant -> weight with which it is drawn among those that a subject has; Kaleido A.1",
    )
    per_subject: int = Field(1, ge=1, le=8, description="pictures per subject, of different variants first")
    max_per_clip: int | None = Field(None, ge=1, description="pictures per clip; null: what the target takes")
    background: Literal["white", "grey", "transparent", "as-is"] | None = Field(
        None, description="behind cut-outs; null: what the target wants"
    )
    format: Literal["png", "jpeg"] | None = Field(None, description="null: what the target wants")
    required: bool | None = Field(
        None, description="leave out clips without a reference; null: where the target needs one"
    )

    @field_validator("shares")
    @classmethod
    def _check_shares(cls, shares: dict[str, float]) -> dict[str, float]:
        if any(share < 0 for share in shares.values()) or not any(shares.values()):
            raise ValueError("shares must not be negative, and one must be above 0")
        return shares


class VideoConfig(SettingsSection):
    """What becomes of a clip that the target cannot take as it is. Null: what the target wants."""

    fps: float | None = Field(None, gt=0, description="frames per second")
    max_frames: int | None = Field(
        None, ge=1, description="longer clips are cut to the frames around the middle"
    )
    max_area: int | None = Field(None, ge=4096, description="px; larger clips are scaled down")
    link: bool = Field(True, description="hard-link clips that go as they are, where the disk allows it")
    crf: int = Field(18, ge=0, le=51, description="x264 quality where a clip is encoded again")
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
    ] = Field("veryfast", description="x264 preset where a clip is encoded again")


class CaptionsConfig(SettingsSection):
    """What the caption says of references."""

    tag: str | None = Field(
        None,
        description="put in place of the phrase of each subject with a reference, such as "
        "'{phrase} [{number}]'; null: captions as they are",
    )

    @field_validator("tag")
    @classmethod
    def _check_tag(cls, tag: str | None) -> str | None:
        if tag is not None:
            try:
                tag.format(phrase="cat", number=1)
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError("only {phrase} and {number} may stand in braces") from error
        return tag


class ExportEngineConfig(SettingsSection):
    """Where an export runs. What is written never depends on it."""

    address: str | None = Field(None, description="Ray address; null: RAY_ADDRESS, else start Ray here")
    unit_clips: int = Field(
        64, ge=1, description="clips per task, and per shard of targets that write shards"
    )
    progress: bool = Field(True, description="show a progress bar")


class ExportConfig(SettingsSection):
    """All settings of an export."""

    where: str | None = Field(
        None,
        description="condition on clips in DuckDB's SQL, such as \"width >= 720 AND caption LIKE '%dog%'\"",
    )
    where_subject: str | None = Field(
        None, description="condition on subjects, such as \"category = 'dog' AND scores.sharpness > 100\""
    )
    licenses: list[str] | None = Field(None, description="only clips under one of these licences")
    exclude_licenses: list[str] = Field([], description="no clip under one of these licences")
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of source videos whose clips are kept apart for validation"
    )
    max_subjects: int | None = Field(None, ge=1, description="subjects per clip; null: what the target takes")
    seed: int = Field(0, description="of every draw, together with ids")
    references: ExportReferencesConfig = ExportReferencesConfig()
    video: VideoConfig = VideoConfig()
    captions: CaptionsConfig = CaptionsConfig()
    engine: ExportEngineConfig = ExportEngineConfig()
