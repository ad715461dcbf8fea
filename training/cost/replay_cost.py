"""Average cost of a step of proxy replay, relative to training only on videos, and the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from training.cost.estimate import Estimate
from training.cost.units import format_si
from training.cost.workload import Workload

# Section 3.5 of the paper (arXiv 2504.17816): "C_vid = 169 C_img (13 latent frames, 169 = 13^2), our approach
# yields E[C] = 0.8 C_img + 0.2 C_vid = 13.72 C_img, achieving 92.7% reduction".
PAPER_P, PAPER_FACTOR, PAPER_MEAN, PAPER_SAVED = 0.2, 13**2, 13.72, 0.927


@dataclass(frozen=True)
class ReplayCost:
    """Mean FLOPs of a sample of pictures and of replay, forward and backward, and the samples of a step."""

    p: float  # share of the steps that are replay
    image: float  # one sample of the tasks on pictures
    video: float  # one sample of replay
    image_batch: float
    video_batch: float

    @property
    def image_step(self) -> float:
        """FLOPs of a step on pictures."""
        return self.image * self.image_batch

    @property
    def video_step(self) -> float:
        """FLOPs of a step of replay."""
        return self.video * self.video_batch

    @property
    def expected(self) -> float:
        """Mean FLOPs of a step over the draws of the task: E[C] = (1 - p) C_img + p C_vid (3.5)."""
        return (1 - self.p) * self.image_step + self.p * self.video_step

    @property
    def share(self) -> float:
        """`expected` as a share of a step of replay."""
        return self.expected / self.video_step

    @property
    def share_at_equal_batches(self) -> float:
        """The same if a step of each had equally many samples, as the paper counts."""
        return ((1 - self.p) * self.image + self.p * self.video) / self.video


def compute_cost(estimate: Estimate) -> ReplayCost | None:
    """Compute the cost of proxy replay; None where a run does not switch between pictures and replay."""
    video = [work for work in estimate.workloads if work.is_replay]
    image = [work for work in estimate.workloads if not work.is_replay]
    if not video or not image or any(work.video[0] > 1 for work in image):
        return None
    image_batch, video_batch = (
        _average_by_share(image, lambda work: work.batch),
        _average_by_share(video, lambda work: work.batch),
    )
    return ReplayCost(
        p=sum(work.share for work in video),
        image=_average_by_share(image, estimate.count_flops) / image_batch,
        video=_average_by_share(video, estimate.count_flops) / video_batch,
        image_batch=image_batch,
        video_batch=video_batch,
    )


def describe_cost(cost: ReplayCost | None) -> list[str]:
    """Describe a cost in lines for a person; none without a cost."""
    if cost is None:
        return []
    p, images = cost.p, f"{cost.image_batch:g}"
    right = (1 - PAPER_P) + PAPER_P * PAPER_FACTOR
    needed = (PAPER_MEAN - 1) / (PAPER_FACTOR - 1)
    return [
        f"cost      {format_si(cost.expected)} FLOPs a step expected = "
        f"{1 - p:.3g} x {format_si(cost.image_step)} "
        f"(identity) + {p:.3g} x {format_si(cost.video_step)} (replay)",
        f"  one video is {cost.video / cost.image:.3g} pictures; one replay step of {cost.video_batch:g} is "
        f"{cost.video_step / cost.image_step:.3g} identity steps of {images}",
        f"  {_format_share(cost.share)} as many steps with only videos; "
        f"{_format_share(cost.share_at_equal_batches)} it at equal batches",
        f"  the paper (arXiv 2504.17816) takes a video as 13² = {PAPER_FACTOR} pictures: quadratic in 13 "
        "latent frames, at equal batches, without references and text. It writes",
        f"  {1 - PAPER_P:g} + {PAPER_P:g} x {PAPER_FACTOR} = {PAPER_MEAN} pictures, "
        f"{_format_saving(1 - PAPER_SAVED)}."
        f" The sum is {right:.1f}, {_format_saving(right / PAPER_FACTOR)}; {PAPER_MEAN} would be "
        f"{_format_saving(PAPER_MEAN / PAPER_FACTOR)} and need p = {needed:.3f},",
        f"  {_format_saving(1 - PAPER_SAVED)} would be {(1 - PAPER_SAVED) * PAPER_FACTOR:.1f} pictures",
    ]


def _format_share(share: float) -> str:
    return f"{100 * share:.1f} % of" if share <= 1 else f"{share:.3g} times"


def _format_saving(share: float) -> str:
    return f"{100 * (1 - share):.1f} % less"


def _average_by_share(works: Iterable[Workload], value: Callable[[Workload], float]) -> float:
    """Mean of a value over the steps of some tasks."""
    given = list(works)
    return sum(work.share * value(work) for work in given) / sum(work.share for work in given)
