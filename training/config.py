"""The config of a training run. Every field is checked and explained; numbers of a paper name the paper."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from reprise.errors import InputError
from reprise.settings import SettingsSection, load_settings

RECIPES_FOLDER = Path(__file__).with_name("recipes")

# Kaleido, Tables 2 and 5, and two that they do not number; formulas in docs/training.md.
PositionScheme = Literal[
    "auto",
    "none",
    "shift_w",
    "shift_h",
    "shift_hw",
    "no_overlap",
    "negative_staggered",
    "negative_fixed",
    "future",
    "unrotated",
    "channel_concat",
    "first_frame",
]


class ModelConfig(SettingsSection):
    """The model to train, as a diffusers pipeline folder or hub id."""

    path: str = Field(
        "", description="diffusers folder or hub id; with transformer/, vae/, text_encoder/, ..."
    )
    revision: str | None = Field(None, description="of a hub id; null: the newest")
    family: Literal["auto", "wan", "cogvideox"] = Field(
        "auto", description="auto: by the transformer's class"
    )
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="random: weights are drawn from the seed, only the config is read"
    )


class PositionsConfig(SettingsSection):
    """Rotary positions of references: Kaleido, Tables 2 and 5."""

    scheme: PositionScheme = Field(
        "auto", description="auto: shift_hw for Wan, first_frame for CogVideoX, as their releases have it"
    )
    shift: Literal["fixed_80", "video"] = Field(
        "fixed_80", description="where shifted axes start: 80 (released code) or the video's size (Eq. 4)"
    )
    place: Literal["before", "after"] = Field(
        "before", description="references before or after the video, in sequence and time (released: before)"
    )
    crop: Literal["diffusers", "released"] = Field(
        "diffusers", description="CogVideoX's rotary formula at sizes other than 3:2: today's, or the older"
    )
    reference_time: Literal["video", "zero"] = Field(
        "video", description="timestep of references: the video's (released), or 0 (only Wan)"
    )

    @property
    def adds_tokens(self) -> bool:
        """Whether references are tokens of the sequence; False where they are channels of the video."""
        return self.scheme != "channel_concat"


class ObjectiveConfig(SettingsSection):
    """The target of the prediction, and the noise levels."""

    kind: Literal["auto", "flow_matching", "v_prediction"] = Field("auto", description="auto: the family's")
    sigma_mean: float = Field(0.0, description="of the normal under the logistic (flow matching)")
    sigma_std: float = Field(1.0, gt=0, description="of the same; Kaleido's released code: 0 and 1")
    shift: Literal["resolution", "none"] | float = Field(
        "resolution", description="of sigma: by tokens per frame (released code), none, or a constant factor"
    )


class MixtureConfig(SettingsSection):
    """Which variant of a reference a sample sees: Kaleido, A.1."""

    crop: float = Field(1, ge=0)
    segment: float = Field(5, ge=0)
    inpaint: float = Field(3, ge=0)
    redux: float = Field(1, ge=0)
    crosspair: float = Field(
        0.4, ge=0, le=1, description="share of references that are cross-paired, Table 4"
    )
    retrieved: float = Field(
        0.0, ge=0, le=1, description="of these, the share from another clip instead; Kaleido has none"
    )

    @model_validator(mode="after")
    def _check_weights(self) -> MixtureConfig:
        if not self.crop + self.segment + self.inpaint + self.redux + self.crosspair:
            raise ValueError("every weight is 0: no reference could be drawn")
        return self


class TaskBase(SettingsSection):
    """Settings of every task."""

    is_replay: ClassVar[bool] = False  # its share of the steps is `replay`, not its weight

    latents: str = Field(description="folder that `reprise encode` wrote")
    weight: float = Field(1.0, gt=0, description="share of the steps, relative to the other tasks'")
    batch: int = Field(256, ge=1, description="samples per step, over all workers")
    micro_batch: int = Field(1, ge=1, description="samples per worker and forward pass")
    caption_dropout: float = Field(0.1, ge=0, le=1, description="captions replaced by the empty one")


class KaleidoTask(TaskBase):
    """References in, subject-consistent video out."""

    kind: Literal["kaleido"] = "kaleido"
    mixture: MixtureConfig = MixtureConfig()
    max_references: int = Field(3, ge=1, description="their number is drawn from 1 to this")
    reference_dropout: float = Field(
        0.0, ge=0, le=1, description="samples without references; released: never"
    )


class VideoTask(TaskBase):
    """Plain text-to-video on the same latents: the baseline, and pretraining."""

    kind: Literal["video"] = "video"


class IdentityTask(TaskBase):
    """A picture of a subject in, another picture of it out: proxy replay's image task."""

    kind: Literal["identity"] = "identity"
    reference_dropout: float = Field(
        0.0, ge=0, le=1, description="share of steps without references; 1: text-to-image"
    )


class ReplayTask(TaskBase):
    """A frame of a plain video in, the video out: proxy replay's video task."""

    is_replay: ClassVar[bool] = True

    kind: Literal["replay"] = "replay"
    batch: int = Field(32, ge=1, description="samples per step, over all workers; the paper's")
    frame: Literal["random", "first"] = Field("random", description="which frame is the reference")
    token_dropout: float = Field(
        0.5,
        ge=0,
        le=1,
        description="p_drop: share of a reference's tokens; the paper gives none, this is ours",
    )
    reference_dropout: float = Field(
        0.0, ge=0, le=1, description="share of steps without references; 1: text-to-video"
    )
    videos: int | None = Field(
        None, ge=1, description="number of videos to train on; null: all (paper: 4000)"
    )


TaskConfig = Annotated[KaleidoTask | VideoTask | IdentityTask | ReplayTask, Field(discriminator="kind")]


class LoraConfig(SettingsSection):
    """Low-rank adapters instead of all weights. Defaults are the released proxy replay's."""

    rank: int = Field(128, ge=1)
    alpha: float = Field(64, gt=0, description="updates are scaled by alpha / rank")
    dropout: float = Field(0.1, ge=0, lt=1, description="of the adapters' input, in training")
    targets: tuple[str, ...] | None = Field(
        None, description="module names, matched as suffixes; null: the family's (CogVideoX: as released)"
    )
    scope: Literal["released", "reference_only"] = Field(
        "released", description="all tokens (released), or: adaptive norms adapt only reference tokens"
    )
    path: str | None = Field(None, description="a LoRA file to start from; null: untrained")
    frozen: Literal["compute", "fp32"] = Field(
        "compute",
        description="how weights that are not trained are kept: in compute.precision, with the same result, "
        "or in float32, with twice the memory",
    )


class SubjectTokenConfig(SettingsSection):
    """<cls>: a token before the prompts of identity samples; it marks that they are about the reference."""

    kind: Literal["none", "trained", "words"] = Field(
        "none",
        description="trained: an added embedding, trained with the model; words: ordinary text before "
        "captions, put there by `reprise encode`, as released",
    )
    words: str = Field("<cls>", min_length=1)


class ConflictConfig(SettingsSection):
    """Measure and reduce the conflict between the gradients of two tasks."""

    every: int | None = Field(None, ge=1, description="steps between comparisons; null: never. Paper: 50")
    groups: int = Field(4, ge=1, description="parts of equal depth into which the layers are put")
    pcgrad: int | None = Field(
        None,
        ge=1,
        description="PCGrad against the mean of this number of last gradients of the other task; null: off",
    )


class OptimizerConfig(SettingsSection):
    """AdamW. Defaults are Kaleido's pretraining (5.1; betas, decay and clip from the released config)."""

    lr: float = Field(1e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    clip: float = Field(0.1, gt=0, description="of the global gradient norm")
    schedule: Literal["constant", "linear", "cosine", "cosine_restarts"] = "constant"
    warmup: int = Field(0, ge=0, description="steps")
    cycles: int = Field(1, ge=1, description="of cosine_restarts")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of averaged weights; null: none")


class ParallelConfig(SettingsSection):
    """How the workers share the work: replicate x shard x sequence = workers."""

    replicate: int = Field(1, ge=1, description="copies of the model (data parallel)")
    shard: int = Field(-1, ge=-1, description="workers over which FSDP2 shards it; -1: all that are left")
    sequence: int = Field(1, ge=1, description="workers that share one sample (Ulysses)")
    reduce: Literal["step", "micro_batch"] = Field(
        "step",
        description="when gradients are summed over the workers: once a step, each holding all of them until "
        "then; or after each micro-batch, each holding its shard: less memory, more traffic",
    )

    @model_validator(mode="after")
    def _check_shard(self) -> ParallelConfig:
        if self.shard == 0:
            raise ValueError("shard must be -1 (all that are left) or at least 1")
        return self


class ComputeConfig(SettingsSection):
    """Precision, recomputation and compilation."""

    precision: Literal["bf16", "fp32"] = Field(
        "bf16", description="of the computation; weights that are trained stay fp32"
    )
    checkpointing: Literal["none", "selective", "full"] = Field(
        "full",
        description="what the backward pass computes again: nothing; all but matrix products and attention; "
        "all of each block",
    )
    compile: bool = Field(False, description="torch.compile each block")
    attention: str | None = Field(None, description="diffusers attention backend; null: its default (SDPA)")


class CheckpointConfig(SettingsSection):
    """How often checkpoints are written, and which are kept."""

    every: int = Field(500, ge=1, description="steps")
    keep: int = Field(3, ge=1, description="newest that stay")
    keep_every: int | None = Field(None, ge=1, description="steps whose checkpoints stay for good")
    export: Literal["fp32", "bf16"] = Field("fp32", description="weights of the finished model")


class ValidationConfig(SettingsSection):
    """Losses and videos of held-out samples."""

    every: int | None = Field(None, ge=1, description="steps; null: never")
    holdout: float = Field(0.02, ge=0, lt=1, description="share of samples never trained on")
    quantiles: tuple[float, ...] = Field((0.1, 0.3, 0.5, 0.7, 0.9), description="of the noise level, 0..1")
    batches: int = Field(4, ge=1, description="held-out samples per quantile")
    videos: int = Field(0, ge=0, description="sampled videos: contact sheet and mp4")
    steps: int = Field(50, ge=1, description="of sampling")
    guidance: float = Field(6.0, ge=1, description="on the text")


class LogConfig(SettingsSection):
    """Where the numbers of a run are written."""

    every: int = Field(10, ge=1, description="steps")
    tensorboard: bool = True
    wandb: str | None = Field(None, description="project name; null: off")
    peak_tflops: float | None = Field(
        None, gt=0, description="of one worker's device, in bf16, for the MFU; null: by its name"
    )


class DataConfig(SettingsSection):
    """What happens to samples that are damaged on disk. A disk that does not answer is asked again."""

    bad_samples: Literal["stop", "skip"] = Field(
        "stop", description="stop the run, or take the next sample of the same bucket in place of each"
    )
    max_bad_samples: int = Field(100, ge=0, description="more of them stop the run, even with skip")


class RunConfig(SettingsSection):
    """Where the run runs and writes. These settings do not change the trained model."""

    name: str = Field("run", description="the same name and output resume a run")
    output: str = Field("runs", description="folder or s3:// URI that all workers reach")
    workers: int = Field(1, ge=1)
    gpus_per_worker: float = Field(-1, ge=-1, description="-1: one where there are GPUs, else none")
    cpus_per_worker: float = Field(1, gt=0)
    max_failures: int = Field(
        3, ge=-1, description="restarts without a new checkpoint between them; -1: for ever"
    )
    address: str | None = Field(None, description="Ray address; null: RAY_ADDRESS, else start Ray here")


class TrainConfig(SettingsSection):
    """The whole config of a training run."""

    seed: int = Field(0, description="of weights, order and noise")
    steps: int = Field(10_000, ge=1, description="optimizer steps; Kaleido 5.1: 10K, then 5K of SFT")
    model: ModelConfig = ModelConfig()
    positions: PositionsConfig = PositionsConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    tasks: tuple[TaskConfig, ...] = Field((), description="tasks to train, each with its data")
    replay: float = Field(
        0.2, ge=0, le=1, description="p: share of steps that are replay, where other tasks are trained too"
    )
    lora: LoraConfig | None = Field(None, description="null: all weights are trained")
    token: SubjectTokenConfig = SubjectTokenConfig()
    conflict: ConflictConfig = ConflictConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    parallel: ParallelConfig = ParallelConfig()
    compute: ComputeConfig = ComputeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    log: LogConfig = LogConfig()
    run: RunConfig = RunConfig()


def list_recipes() -> list[str]:
    """List the names of the shipped recipes, sorted."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml"))


def load_train_config(
    path: str | None = None, recipe: str | None = None, overrides: Iterable[str] = ()
) -> TrainConfig:
    """Load the config of a file or a shipped recipe, with `key=value` overrides.

    Raises:
        RepriseError: both are given, or the config cannot be read.
    """
    if path and recipe:
        raise InputError("--config and --recipe: give one of them")
    return load_settings(TrainConfig, RECIPES_FOLDER / f"{recipe}.yaml" if recipe else path, overrides)
