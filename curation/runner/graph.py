"""The graph of a curation run: which stages, in which operators, with which resources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curation.config import CurationConfig, StageResources
from curation.models.registry import import_object
from curation.rows.stage_names import (
    CAPTION,
    CROP,
    CROSSPAIR,
    FILTER,
    FLOW,
    GROUND,
    INPAINT,
    MATCH,
    REDUX,
    RETRIEVE,
    SEGMENT,
    SHARD,
    SLICE,
    STAGES,
    TRACK,
)
from curation.stages.caption import Caption
from curation.stages.crop import Crop
from curation.stages.filter import Filter
from curation.stages.flow import Flow
from curation.stages.ground import Ground
from curation.stages.inpaint import Inpaint
from curation.stages.match import Match
from curation.stages.redux import Redux
from curation.stages.segment import Segment
from curation.stages.stage import Stage
from curation.stages.track import Track
from reprise.errors import ConfigError

# In the order of `STAGES`. The other stages do not work on single clips: `slice` makes the rows, and the last
# three need all of them.
CLIP_STAGES: dict[str, Callable[[CurationConfig], Stage]] = {
    CAPTION: Caption,
    MATCH: Match,
    GROUND: Ground,
    TRACK: Track,
    SEGMENT: Segment,
    FLOW: Flow,
    FILTER: Filter,
    CROP: Crop,
    INPAINT: Inpaint,
    REDUX: Redux,
}


@dataclass(frozen=True)
class Operator:
    """Neighbouring stages that run in one worker, because they reserve the same resources."""

    stages: tuple[str, ...]
    resources: StageResources

    @property
    def name(self) -> str:
        """The names of its stages."""
        return "+".join(self.stages)


def get_stage_resources(config: CurationConfig, stage: str) -> StageResources:
    """Get what a worker of a stage reserves; one core if the config says nothing."""
    return config.engine.stages.get(stage, StageResources())


def build_operators(config: CurationConfig) -> list[Operator]:
    """Build the operators of a run in order; neighbouring clip stages with equal resources share one.

    Raises:
        ConfigError: `engine.stages` names a stage that does not exist.
    """
    unknown = set(config.engine.stages) - set(STAGES)
    if unknown:
        raise ConfigError(
            f"engine.stages.{sorted(unknown)[0]}: no such stage; stages are {', '.join(STAGES)}"
        )
    found = [Operator((SLICE,), get_stage_resources(config, SLICE))]
    groups: list[Operator] = []
    for stage in CLIP_STAGES:
        wanted = get_stage_resources(config, stage)
        if groups and groups[-1].resources == wanted:
            groups[-1] = Operator((*groups[-1].stages, stage), wanted)
        else:
            groups.append(Operator((stage,), wanted))
    return [*found, *groups, Operator((CROSSPAIR, RETRIEVE, SHARD), get_stage_resources(config, SHARD))]


def build_stage(name: str, config: CurationConfig) -> Stage:
    """Build a clip stage by its name, or a stage of a person's own by `module:Class`.

    Raises:
        ConfigError: There is no such stage.
    """
    if ":" in name:
        own: Stage = import_object(name, "stage")(config)
        return own
    if name not in CLIP_STAGES:
        raise ConfigError(
            f"no clip stage {name!r}; clip stages are {', '.join(CLIP_STAGES)}, or module:Class"
        )
    return CLIP_STAGES[name](config)


def describe_graph(config: CurationConfig) -> list[str]:
    """Describe the graph, one line per operator, for `--dry-run`."""
    lines = []
    for operator in build_operators(config):
        need = operator.resources
        gpu = f", {need.num_gpus:g} GPU" if need.num_gpus else ""
        width = f"{need.concurrency} workers" if need.concurrency else "as many workers as fit"
        kind = "actors" if need.num_gpus else "tasks"
        lines.append(
            f"{operator.name:<66} {kind}: {need.num_cpus:g} CPU{gpu}, batches of {need.batch_size}, {width}"
        )
    return lines
