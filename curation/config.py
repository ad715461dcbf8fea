"""The config of a curation run: YAML or nothing, `key=value` overrides, every field checked and explained."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curation.errors import RepriseError
from curation.ids import digest
from curation.thresholds import Thresholds


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SliceConfig(_Section):
    """Shots, lengths, cutting and sampling. Times in seconds, sizes in pixels."""

    detector: Literal["content", "adaptive", "threshold", "none"] = Field(
        "content", description="PySceneDetect detector; none: only length decides"
    )
    threshold: float | None = Field(
        None, ge=0, description="of that detector; null: PySceneDetect's own (27 content, 3 adaptive, 12 fades)"
    )
    min_shot: float = Field(0.6, ge=0, description="cuts closer than this are merged; PySceneDetect's default")
    min_length: float = Field(2.0, gt=0, description="shorter shots are rejected; OpenS2V-5M: 2 s")
    max_length: float = Field(10.0, gt=0, description="longer shots are split evenly; OpenS2V-5M: 10 s")
    min_short_side: int = Field(0, ge=0, description="smaller videos are rejected; OpenS2V-5M uses 480")
    max_short_side: int = Field(1080, ge=64, description="larger ones are scaled down while cutting")
    cut: Literal["auto", "encode"] = Field(
        "auto", description="auto: copy H.264 packets where that is frame-exact, else encode; encode: always"
    )
    crf: int = Field(18, ge=0, le=51, description="x264 quality where a clip is encoded")
    preset: str = Field("ultrafast", description="x264 preset where a clip is encoded")
    sample_fps: float = Field(2.0, gt=0, le=30, description="frames per second that later stages look at")

    @model_validator(mode="after")
    def _ordered(self) -> SliceConfig:
        if self.max_length < 2 * self.min_length:
            raise ValueError(
                "max_length must be at least twice min_length, or a long shot cannot be split evenly"
            )
        return self


class CaptionConfig(_Section):
    require: bool = Field(True, description="a clip without a caption is rejected, since nothing names subjects")


class MatchConfig(_Section):
    taxonomy: str | None = Field(None, description="path of another taxonomy.yaml; null: the one shipped")
    groups: list[str] | None = Field(None, description="only these taxonomy groups; null: all but background")
    max_subjects: int = Field(8, ge=1, description="candidates per caption, in order of appearance")


class GroundConfig(_Section):
    frames: int = Field(
        3, ge=1, le=16, description="sampled frames to look at, spread over the clip; each phrase keeps its best"
    )
    max_instances: int = Field(4, ge=1, description="boxes per phrase; OpenS2V-5M: 4 subjects")


class FilterConfig(Thresholds):
    pass


class ReferenceConfig(_Section):
    enabled: bool = True
    per_subject: int = Field(1, ge=1, le=8)


class CropConfig(_Section):
    padding: float = Field(0.1, ge=0, le=1, description="context around the box, share of its sides")


class CrosspairConfig(_Section):
    share: float = Field(
        0.4, ge=0, le=1, description="of kept subjects that get a cross-pair; Kaleido A.1, Table 4: best at 0.4"
    )
    pool: int = Field(256, ge=1, description="background plates drawn from the whole dataset")
    feather: float = Field(1.5, ge=0, description="width of the soft edge, px")


class ShardConfig(_Section):
    target_mb: int = Field(256, ge=1, description="MB per Parquet file")
    row_group_rows: int = Field(32, ge=1, description="rows that a streaming reader holds at once")


class ReportConfig(_Section):
    clips_per_page: int = Field(24, ge=1, le=200)
    max_clips: int | None = Field(5000, ge=1, description="clips in the gallery; null: all")


class ModelsConfig(_Section):
    """Backend per role; null takes the profile's."""

    detector: str | None = None
    segmenter: str | None = None
    scorer: str | None = None
    faces: str | None = None
    inpainter: str | None = None
    variator: str | None = None
    captioner: str | None = None


class StageResources(_Section):
    """What one worker of a stage reserves."""

    num_cpus: float = Field(1, gt=0)
    num_gpus: float = Field(0, ge=0, description="a fraction shares a GPU between workers")
    batch_size: int = Field(8, ge=1, description="clips per call")
    concurrency: int | None = Field(None, ge=1, description="workers; null: as many as fit")


class EngineConfig(_Section):
    """Where and how wide it runs; never part of what a row's content depends on."""

    address: str | None = Field(None, description="Ray address; null: RAY_ADDRESS, else start Ray here")
    num_cpus: int | None = Field(None, ge=1, description="of a local Ray; null: all cores")
    object_store_mb: int | None = Field(None, ge=80, description="of a local Ray; null: 30 % of memory, at most 2 GB")
    stages: dict[str, StageResources] = Field(default_factory=dict, description="per stage name")
    progress: bool = True


class CurationConfig(_Section):
    profile: Literal["embedded"] = Field("embedded", description="which backends answer the roles")
    seed: int = 0
    slice: SliceConfig = SliceConfig()
    caption: CaptionConfig = CaptionConfig()
    match: MatchConfig = MatchConfig()
    ground: GroundConfig = GroundConfig()
    filter: FilterConfig = FilterConfig()
    crop: CropConfig = CropConfig()
    inpaint: ReferenceConfig = ReferenceConfig()
    redux: ReferenceConfig = ReferenceConfig()
    crosspair: CrosspairConfig = CrosspairConfig()
    shard: ShardConfig = ShardConfig()
    report: ReportConfig = ReportConfig()
    models: ModelsConfig = ModelsConfig()
    engine: EngineConfig = EngineConfig()

    def content(self) -> dict[str, Any]:
        """Everything that a row's content depends on: all but where it runs and how it is shown."""
        return self.model_dump(mode="json", exclude={"engine", "report", "shard"})


def content_hash(config: CurationConfig, revisions: dict[str, str]) -> str:
    """Digest of the config and of the model and data revisions that make a row; 12 hex characters."""
    return digest(config.content(), revisions, length=12)


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> CurationConfig:
    """Read a YAML file, apply `key.sub=value` overrides (values in YAML), check everything.

    Raises:
        RepriseError: no such file, not YAML, an unknown key (with the nearest known one) or a bad value.
    """
    data: Any = {}
    if path is not None:
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise RepriseError(f"cannot read the config {path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise RepriseError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(data, dict):
            raise RepriseError(f"{path} must hold `key: value` lines at the top")
    for override in overrides:
        _apply(data, override)
    return _validate(data, str(path) if path else "the command line")


def with_overrides(config: CurationConfig, overrides: Iterable[str]) -> CurationConfig:
    """`config` with `key.sub=value` overrides applied and checked."""
    data = config.model_dump(mode="json")
    for override in overrides:
        _apply(data, override)
    return _validate(data, "the command line")


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RepriseError(f"{override!r} is no override: write key=value, for example filter.sharpness_min=60")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RepriseError(f"the value of {key} is not YAML: {text!r}") from error
    at: Any = data
    *parents, last = key.split(".")
    for parent in parents:
        if at.get(parent) is None:
            at[parent] = {}
        at = at[parent]
        if not isinstance(at, dict):
            raise RepriseError(f"{key}: {parent} holds a value, not a section")
    at[last] = value


def _validate(data: dict[str, Any], where: str) -> CurationConfig:
    try:
        return CurationConfig.model_validate(data)
    except ValidationError as error:
        raise RepriseError(f"{where}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        return f"{key}: {first['msg'].removeprefix('Value error, ')}{more}"
    known = list(keys(CurationConfig))
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    if not near:
        tails = {name.rsplit(".", 1)[-1]: name for name in known}
        near = [tails[hit] for hit in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(tails), n=1)]
    return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key that a config can hold."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")
