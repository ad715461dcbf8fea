"""The graph of a curation run: which stages, in which operators, with which resources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curation.config import CurationConfig, StageResources
from curation.models.registry import import_object
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
from reprise.errors import RepriseError

SLICE = "slice"
CROSSPAIR = "crosspair"
RETRIEVE = "retrieve"
SHARD = "shard"
# In order. `slice` makes the rows; `crosspair`, `retrieve` and `shard` need all of them and run at the end.
CLIP_STAGES: dict[str, Callable[[CurationConfig], Stage]] = {
    "caption": Caption,
    "match": Match,
    "ground": Ground,
    "track": Track,
    "segment": Segment,
    "flow": Flow,
    "filter": Filter,
    "crop": Crop,
    "inpaint": Inpaint,
    "redux": Redux,
}
STAGES = (SLICE, *CLIP_STAGES, CROSSPAIR, RETRIEVE, SHARD)


@dataclass(frozen=True)
class Operator:
    """Neighbouring stages that run in one worker, because they reserve the same."""

    stages: tuple[str, ...]
    resources: StageResources

    @property
    def name(self) -> str:
        return "+".join(self.stages)


def get_stage_resources(config: CurationConfig, stage: str) -> StageResources:
    """What a stage reserves. On CPU alone one core each, so that two cores never wait for a third."""
    return config.engine.stages.get(stage, StageResources())


def build_operators(config: CurationConfig) -> list[Operator]:
    """`slice`, then the clip stages, neighbours with equal resources together.

    Raises:
        RepriseError: `engine.stages` names a stage that does not exist.
    """
    unknown = set(config.engine.stages) - set(STAGES)
    if unknown:
        raise RepriseError(
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
    """A clip stage by name, or one's own by `module:Class`; the class is called with the config.

    Raises:
        RepriseError: no such stage.
    """
    if ":" in name:
        own: Stage = import_object(name, "stage")(config)
        return own
    if name not in CLIP_STAGES:
        raise RepriseError(
            f"no clip stage {name!r}; clip stages are {', '.join(CLIP_STAGES)}, or module:Class"
        )
    return CLIP_STAGES[name](config)


def describe_graph(config: CurationConfig) -> list[str]:
    """The graph in words, one line per operator, for `--dry-run`."""
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
