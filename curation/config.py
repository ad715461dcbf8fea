"""The config of a curation run: YAML or nothing, `key=value` overrides, every field checked and explained."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from curation.model_spec import ModelSpec
from curation.rows.groups import BACKGROUND
from curation.rows.thresholds import Thresholds
from curation.taxonomy import Taxonomy
from curation.taxonomy.files import NAMED_FILES
from reprise import settings
from reprise.digest import compute_digest
from reprise.errors import RepriseError
from reprise.settings import SettingsSection

# Earlier names of profiles, and of the backends of the profile `classical`.
FORMER_NAMES = {"embedded": "classical", "full": "pretrained"}
_PLAYGROUND_PROFILE = Path(__file__).with_name("playground") / "profile.yaml"


class SliceConfig(SettingsSection):
    """Shots, lengths, cutting and sampling. Times in seconds, sizes in pixels."""

    detector: Literal["content", "adaptive", "threshold", "none"] = Field(
        "content", description="PySceneDetect detector; none: only length decides"
    )
    threshold: float | None = Field(
        None,
        ge=0,
        description="of that detector; null: PySceneDetect's own (27 content, 3 adaptive, 12 fades)",
    )
    min_shot: float = Field(
        0.6, ge=0, description="cuts closer than this are merged; PySceneDetect's default"
    )
    min_length: float = Field(2.0, gt=0, description="shorter shots are rejected; OpenS2V-5M: 2 s")
    max_length: float = Field(
        10.0, gt=0, description="longer shots are cut into pieces of at most this; OpenS2V-5M: 10 s"
    )
    min_short_side: int = Field(0, ge=0, description="smaller videos are rejected; OpenS2V-5M uses 480")
    max_short_side: int = Field(1080, ge=64, description="larger ones are scaled down while cutting")
    cut: Literal["auto", "encode"] = Field(
        "auto", description="auto: copy H.264 packets where that is frame-exact, else encode; encode: always"
    )
    crf: int = Field(18, ge=0, le=51, description="x264 quality where a clip is encoded")
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
    ] = Field("ultrafast", description="x264 preset where a clip is encoded")
    sample_fps: float = Field(2.0, gt=0, le=30, description="frames per second that later stages look at")
    timeout: float = Field(
        120.0, gt=0, description="a video whose decoder gives no frame for so long fails, until the next run"
    )

    @model_validator(mode="after")
    def _check_lengths(self) -> SliceConfig:
        if self.max_length < 2 * self.min_length:
            raise ValueError(
                "max_length must be at least twice min_length, or the rest of a long shot is too short"
            )
        return self


class CaptionConfig(SettingsSection):
    """Captions: the video's own, else the captioner's."""

    require: bool = Field(
        True, description="a clip without a caption is rejected, since nothing names subjects"
    )


class MatchConfig(SettingsSection):
    """From captions to candidate subjects."""

    taxonomy: str | None = Field(
        None, description="path of another taxonomy.yaml, or playground; null: the one shipped"
    )
    groups: list[str] | None = Field(None, description="only these taxonomy groups; null: all but background")
    max_subjects: int = Field(8, ge=1, description="candidates per caption, in order of appearance")

    @field_validator("taxonomy")
    @classmethod
    def _make_absolute(cls, path: str | None) -> str | None:
        """Make the path absolute: a worker process has another working directory."""
        if path is None or path in NAMED_FILES:
            return path
        return str(Path(path).expanduser().absolute())

    @field_validator("groups")
    @classmethod
    def _reject_places(cls, groups: list[str] | None) -> list[str] | None:
        if groups is not None and BACKGROUND in groups:
            raise ValueError(
                f"{BACKGROUND} names places, which no box holds and no cut-out shows; "
                "places without their subjects are the plates of crosspair"
            )
        if groups == []:
            raise ValueError("no group at all would find no subject; null means every group")
        return groups


class GroundConfig(SettingsSection):
    """From phrases to boxes."""

    frames: int = Field(
        3,
        ge=1,
        le=16,
        description="sampled frames to look at, spread over the clip; each phrase keeps its best",
    )
    max_instances: int = Field(4, ge=1, description="boxes per phrase; OpenS2V-5M: 4 subjects")


class TrackConfig(SettingsSection):
    """Subjects tracked through their clips, if a backend is configured for the role `tracker`."""

    enabled: bool = Field(True, description="false: off, and no checkpoint is needed")
    references: int = Field(
        2,
        ge=1,
        le=8,
        description="frames of a subject that give a crop and a cut-out; 1: the best alone; ours",
    )
    min_quality: float = Field(
        0.5, ge=0, le=1, description="share of the best frame's quality that a further one must reach; ours"
    )
    min_difference: float = Field(
        0.05,
        ge=0,
        description="in pose from the frames taken before; with an embedder 1 - cosine, else the relative "
        "change of the box's shape; ours",
    )


class FlowConfig(SettingsSection):
    """Optical flow of subjects and background, if a backend is configured for the role `flow`."""

    enabled: bool = Field(True, description="false: off, and no checkpoint is needed")


class FilterConfig(Thresholds):
    """Thresholds on the scores of a subject; null switches one off."""


class ReferenceConfig(SettingsSection):
    """References that a model makes."""

    enabled: bool = Field(True, description="whether they are made at all")
    per_subject: int = Field(1, ge=1, le=8, description="pictures per kept subject, each with its own seed")


# Prompts of a generative inpainter, one drawn per picture; {subject} stands for the phrase. Some are plain:
# Kaleido erases the background, so that the text alone decides what it is.
_BACKGROUND_PROMPTS = (
    "{subject} in front of a plain white wall",
    "{subject} in front of a plain grey studio backdrop",
    "{subject} on a sandy beach under a clear sky",
    "{subject} in a green meadow on a sunny day",
    "{subject} in a city street on an overcast day",
    "{subject} in a bright living room",
    "{subject} on a snowy mountain",
    "{subject} in a dark room lit by a warm lamp",
)


class InpaintConfig(ReferenceConfig):
    """Backgrounds erased, or painted by a generative inpainter."""

    prompts: list[str] = Field(
        list(_BACKGROUND_PROMPTS), description="one drawn per picture; {subject} stands for the phrase"
    )


class CropConfig(SettingsSection):
    """The references `crop` and `segment`."""

    padding: float = Field(0.1, ge=0, le=1, description="context around the box, share of its sides")


class CrosspairConfig(SettingsSection):
    """Subjects on backgrounds of other videos."""

    share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="of kept subjects that get a cross-pair; Kaleido A.1, Table 4: best at 0.4",
    )
    clips: float = Field(
        0.25, ge=0, le=1, description="of plates that are clips as they are, not backgrounds; ours"
    )
    pool: int = Field(256, ge=1, description="background plates drawn from the whole dataset")
    feather: float = Field(1.5, ge=0, description="width of the soft edge, px")


class RetrieveConfig(SettingsSection):
    """The same subject in other clips."""

    share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="of kept subjects that get a retrieved reference where there is one; ours",
    )
    same_min: float = Field(
        0.6, ge=-1, le=1, description="similarity from which two pictures show one subject; ours, for DINOv2"
    )
    copy_min: float = Field(
        0.95, ge=-1, le=1, description="similarity from which they are the same picture; ours, for DINOv2"
    )
    same_video: bool = Field(True, description="also from other clips of the subject's own video")

    @model_validator(mode="after")
    def _check_similarities(self) -> RetrieveConfig:
        if self.copy_min < self.same_min:
            raise ValueError(
                f"same_min {self.same_min:g} is above copy_min {self.copy_min:g}: nothing could be found"
            )
        return self


class ShardConfig(SettingsSection):
    """The finished files."""

    target_mb: int = Field(256, ge=1, description="MB per Parquet file")
    row_group_rows: int = Field(32, ge=1, description="rows that a streaming reader holds at once")


class ReportConfig(SettingsSection):
    """The HTML report."""

    clips_per_page: int = Field(24, ge=1, le=200, description="of the gallery")
    max_clips: int | None = Field(5000, ge=1, description="clips in the gallery; null: all")


def _get_model_tag(value: Any) -> str:
    return "spec" if isinstance(value, dict | ModelSpec) else "name"


ModelChoice = Annotated[
    Annotated[str, Tag("name")] | Annotated[ModelSpec, Tag("spec")], Discriminator(_get_model_tag)
]


class ModelsConfig(SettingsSection):
    """Backend per role: null is the profile's; else a name, `module:Class`, or {backend, checkpoint, ...}."""

    size: Literal["small", "base", "large"] | None = Field(
        None, description="of the profile pretrained: small (for a CPU), base, large; null: large"
    )
    detector: ModelChoice | None = Field(None, description="phrases -> boxes")
    segmenter: ModelChoice | None = Field(None, description="boxes -> masks")
    tracker: ModelChoice | None = Field(None, description="a subject through its clip")
    scorer: ModelChoice | None = Field(None, description="how well pictures fit texts")
    embedder: ModelChoice | None = Field(
        None, description="pictures -> vectors: identity, and the stage retrieve"
    )
    faces: ModelChoice | None = Field(None, description="faces, where they look and whose they are")
    flow: ModelChoice | None = Field(None, description="motion between frames")
    inpainter: ModelChoice | None = Field(None, description="backgrounds")
    variator: ModelChoice | None = Field(None, description="the subject in another pose, view and light")
    captioner: ModelChoice | None = Field(None, description="clips without a caption -> sentences")


class StageResources(SettingsSection):
    """What one worker of a stage reserves."""

    num_cpus: float = Field(1, gt=0)
    num_gpus: float = Field(0, ge=0, description="a fraction shares a GPU between workers")
    batch_size: int = Field(8, ge=1, description="clips per call")
    concurrency: int | None = Field(None, ge=1, description="workers; null: as many as fit")


class EngineConfig(SettingsSection):
    """Where it runs and with how many workers; the content of a row never depends on it."""

    address: str | None = Field(None, description="Ray address; null: RAY_ADDRESS, else start Ray here")
    num_cpus: int | None = Field(None, ge=1, description="of a local Ray; null: all cores")
    object_store_mb: int | None = Field(
        None, ge=80, description="of a local Ray; null: 30 % of memory, at most 2 GB"
    )
    stages: dict[str, StageResources] = Field(
        default_factory=dict, description="stage -> num_cpus, num_gpus, batch_size, concurrency"
    )
    progress: bool = Field(True, description="show a progress bar")


class CurationConfig(SettingsSection):
    """All settings of a curation run."""

    profile: Literal["classical", "pretrained", "playground"] = Field(
        "classical", description="which backends answer the roles; playground: of the drawn world"
    )
    seed: int = Field(0, description="of every draw, together with ids")
    slice: SliceConfig = SliceConfig()
    caption: CaptionConfig = CaptionConfig()
    match: MatchConfig = MatchConfig()
    ground: GroundConfig = GroundConfig()
    track: TrackConfig = TrackConfig()
    flow: FlowConfig = FlowConfig()
    filter: FilterConfig = FilterConfig()
    crop: CropConfig = CropConfig()
    inpaint: InpaintConfig = InpaintConfig()
    redux: ReferenceConfig = ReferenceConfig()
    crosspair: CrosspairConfig = CrosspairConfig()
    retrieve: RetrieveConfig = RetrieveConfig()
    shard: ShardConfig = ShardConfig()
    report: ReportConfig = ReportConfig()
    models: ModelsConfig = ModelsConfig()
    engine: EngineConfig = EngineConfig()

    @model_validator(mode="before")
    @classmethod
    def _apply_profile_defaults(cls, data: Any) -> Any:
        """Apply the defaults of a profile: the playground has its own names and thresholds."""
        if isinstance(data, dict) and data.get("profile") == "playground":
            return _merge_defaults(yaml.safe_load(_PLAYGROUND_PROFILE.read_text(encoding="utf-8")), data)
        return data

    @model_validator(mode="after")
    def _check_size(self) -> CurationConfig:
        if self.models.size is not None and self.profile != "pretrained":
            raise ValueError(
                f"models.size={self.models.size} is a size of profile=pretrained, not of {self.profile}"
            )
        return self

    @field_validator("profile", mode="before")
    @classmethod
    def _reject_former_name(cls, profile: Any) -> Any:
        if isinstance(profile, str) and profile in FORMER_NAMES:
            raise ValueError(f"the profile {profile} is now named {FORMER_NAMES[profile]}")
        return profile

    def dump_content(self) -> dict[str, Any]:
        """Dump everything that a row's content depends on: all but where it runs and how it is shown.

        The path of a taxonomy is left out, too: its content counts, and is among the revisions. So is the
        size of a profile: the models that it selects are among the revisions. A time-out only decides what
        fails, and such a failure is retried.
        """
        found = self.model_dump(mode="json", exclude={"engine": True, "report": True, "shard": True})
        del found["match"]["taxonomy"], found["slice"]["timeout"], found["models"]["size"]
        return found


def _merge_defaults(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Complete the given settings from defaults, section by section."""
    merged = {**defaults, **given}
    for name, section in defaults.items():
        if isinstance(section, dict) and isinstance(given.get(name, {}), dict):
            merged[name] = _merge_defaults(section, given.get(name, {}))
    return merged


def compute_config_hash(config: CurationConfig, revisions: dict[str, str]) -> str:
    """Digest the config and the revisions of models that make a row; 12 hexadecimal characters."""
    return compute_digest(config.dump_content(), revisions, length=12)


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> CurationConfig:
    """Load the config of a file and of `key.sub=value` overrides, see `settings.load_settings`.

    Raises:
        RepriseError: also a taxonomy that cannot be used.
    """
    config = settings.load_settings(CurationConfig, path, overrides)
    _check_groups(config.match)
    return config


def _check_groups(config: MatchConfig) -> None:
    """Check the taxonomy and its groups now: a run would only show the error by rejecting every clip."""
    if config.taxonomy is None and config.groups is None:
        return
    known = Taxonomy.load(config.taxonomy).groups
    for group in config.groups or ():
        if group not in known:
            near = difflib.get_close_matches(group, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"groups are {', '.join(known)}"
            raise RepriseError(f"match.groups: the taxonomy has no group {group}; {hint}")
