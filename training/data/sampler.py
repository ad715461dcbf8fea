"""Which samples make up a step: a pure function of (seed, config, step).

* One task a step, drawn with the tasks' weights, the same for all workers.
* One bucket a step: samples of equal latent size and equal capacity for references, so that all can have
  equal shapes. Buckets take turns in proportion to their size.
* Each bucket is an endless stream of permutations, one an epoch. A step takes the next `batch` samples of it,
  also across the end of an epoch. Nothing is dropped, and each sample comes once in each epoch.

There is no state, so a checkpoint needs only the number of the step. It also stores `Sampler.fingerprint`, to
detect that data or config changed.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from reprise.errors import RepriseError
from training.data import random_streams
from training.data.samples import LatentSize, SampleChoice, SampleRecord
from training.latents.store import Records
from training.tasks.task import Task

_WATCHED_INDEX = 1 << 48  # start of the indices of samples that are only watched: beyond those of any run


@dataclass(frozen=True)
class Bucket:
    """Samples that may share a step."""

    size: LatentSize  # latent frames, height, width
    capacity: int  # references that each sample can give
    rows: NDArray[np.int64]  # of the index

    def __str__(self) -> str:
        frames, height, width = self.size
        return f"{frames}x{height}x{width}, up to {self.capacity} references"


@dataclass(frozen=True)
class StepPlan:
    """One step of all workers together."""

    step: int
    task: str
    size: LatentSize
    references: int  # of each sample
    indices: range  # global sample indices
    rows: tuple[int, ...]  # of the task's index, one per sample

    def count_micro_steps(self, ranks: int, micro_batch: int) -> int:
        """Return the number of forward passes per rank."""
        return -(-self._count_per_rank(ranks) // micro_batch)

    def slice_samples(
        self, rank: int, ranks: int, micro_step: int, micro_batch: int
    ) -> list[tuple[int, int]]:
        """Return (global index, row) of the samples that one data rank sees in one micro step.

        Slices of all ranks and micro steps are disjoint, and together they are the step. Ranks that share a
        sequence ask with the same `rank`.
        """
        share = self._count_per_rank(ranks)
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} of {ranks}")
        begin = rank * share + micro_step * micro_batch
        end = min(begin + micro_batch, (rank + 1) * share)
        return list(zip(self.indices[begin:end], self.rows[begin:end], strict=True))

    def _count_per_rank(self, ranks: int) -> int:
        share, rest = divmod(len(self.rows), ranks)
        if rest:
            raise RepriseError(
                f"task {self.task}: a batch of {len(self.rows)} cannot be shared by {ranks} workers: "
                f"make it a multiple of {ranks}"
            )
        return share


class Sampler:
    """The order of all samples of a run.

    Args:
        tasks, records: what is trained, and the index of each one's latents.
        holdout: share of sources that are never trained on, by a hash of their names. The split is the same
            in every run, so what a pretraining held out, a later fine-tuning can validate on.

    Raises:
        RepriseError: a task has no sample that it could use.
    """

    def __init__(
        self, tasks: Sequence[Task], records: Sequence[Records], *, seed: int, holdout: float = 0.0
    ) -> None:
        if not tasks:
            raise RepriseError("no task to train: give the config a `tasks` section")
        self.seed, self.tasks = seed, tuple(tasks)
        weights = np.array([task.weight for task in tasks], np.float64)
        self._bounds = np.cumsum(weights / weights.sum())
        self._task_draws = np.zeros(0, np.int64)
        self._steps_before = np.zeros((1, len(tasks)), np.int64)
        self.buckets: dict[str, tuple[Bucket, ...]] = {}  # trained on, by task
        self.held_out: dict[str, tuple[Bucket, ...]] = {}
        facts: list[object] = [seed, holdout]
        for task, index in zip(tasks, records, strict=True):
            if task.name in self.buckets:
                raise ValueError(f"two tasks named {task.name}")
            trained, held = _split_holdout(task, index, holdout)
            self.buckets[task.name], self.held_out[task.name] = trained, held
            if not task.weight:
                continue  # only watched: no step depends on it
            facts.append([task.name, task.weight, task.batch])
            facts += [[*bucket.size, bucket.capacity, index.hash_rows(bucket.rows)] for bucket in trained]
        self.fingerprint = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
        self._get_permutation = functools.lru_cache(maxsize=64)(self._permute_rows)

    def plan_step(self, step: int) -> StepPlan:
        """Plan a step, counted from 0. Cheap; the plan does not depend on earlier calls."""
        which, before = self._find_task(step)
        first = int(sum(count * other.batch for count, other in zip(before, self.tasks, strict=True)))
        return self._plan_turn(self.tasks[which], step, int(before[which]), first)

    def plan_watched_step(self, task: str, step: int) -> StepPlan | None:
        """Plan a step of a task of weight 0, which is only measured; None: the task has its own steps.

        Training never draws from the indices of its samples.
        """
        watched_task = next(each for each in self.tasks if each.name == task)
        if watched_task.weight > 0:
            return None
        return self._plan_turn(watched_task, step, step, _WATCHED_INDEX + step * watched_task.batch)

    def _plan_turn(self, task: Task, step: int, turn: int, first: int) -> StepPlan:
        """The `turn`-th step of a task, whose samples have the indices from `first` on."""
        buckets = self.buckets[task.name]
        chosen, turn = find_turn([len(bucket.rows) for bucket in buckets], turn)
        bucket = buckets[chosen]
        count = task.draw_count(
            bucket.capacity, random_streams.make_generator(self.seed, "references", task.name, step)
        )
        return StepPlan(
            step=step,
            task=task.name,
            size=bucket.size,
            references=count,
            indices=range(first, first + task.batch),
            rows=tuple(self._take_rows(task.name, chosen, turn * task.batch, task.batch)),
        )

    def draw_choice(self, plan: StepPlan, index: int, record: SampleRecord) -> SampleChoice:
        """Draw the references and the caption of one sample of a plan with its task."""
        task = next(task for task in self.tasks if task.name == plan.task)
        return task.choose_references(
            record, plan.references, random_streams.make_generator(self.seed, "choice", index)
        )

    def list_substitutes(self, plan: StepPlan, row: int) -> list[int]:
        """List the rows of a row's bucket, from this one on: the next serves where one is damaged."""
        for bucket in self.buckets[plan.task]:
            place = int(np.searchsorted(bucket.rows, row))  # the rows of a bucket ascend
            if bucket.size == plan.size and place < len(bucket.rows) and bucket.rows[place] == row:
                return [*bucket.rows[place:].tolist(), *bucket.rows[:place].tolist()]
        raise ValueError(f"no bucket of task {plan.task} has row {row}")

    def _take_rows(self, task: str, bucket: int, begin: int, count: int) -> list[int]:
        """Rows `begin` to `begin + count` of a bucket's endless stream."""
        size = len(self.buckets[task][bucket].rows)
        rows: list[int] = []
        while len(rows) < count:
            epoch, at = divmod(begin + len(rows), size)
            order = self._get_permutation(task, bucket, epoch)
            rows += order[at : at + count - len(rows)].tolist()
        return rows

    def _permute_rows(self, task: str, bucket: int, epoch: int) -> NDArray[np.int64]:
        found = self.buckets[task][bucket]
        name = "x".join(str(side) for side in (*found.size, found.capacity))
        return found.rows[
            random_streams.draw_permutation(len(found.rows), self.seed, "order", task, name, epoch)
        ]

    def _find_task(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """The task of a step, and how many steps each task had before it."""
        if step >= len(self._task_draws):
            length = max(1024, 2 * (step + 1))
            uniforms = random_streams.draw_uniforms(length, self.seed, "task")
            self._task_draws = np.searchsorted(self._bounds[:-1], uniforms, side="right")
            had = np.cumsum(self._task_draws[:, None] == np.arange(len(self.tasks)), axis=0)
            self._steps_before = np.vstack([np.zeros((1, len(self.tasks)), np.int64), had])
        return int(self._task_draws[step]), self._steps_before[step]


def find_turn(sizes: Sequence[int], step: int) -> tuple[int, int]:
    """Find the bucket, among those of these sizes, whose turn a step is, and its number of earlier turns.

    The k-th turn (from 0) of a bucket of n is due at the time (k + 1/2) / n. Turns are taken in the order of
    time, and of buckets at equal times. After any number of steps each bucket is within a few turns of its
    share, and all buckets end an epoch at about the same time.
    """
    total = sum(sizes)
    # At this time (in steps) at most `step` turns were due; the missing ones are taken one by one.
    past = max(0, step - len(sizes))
    had = [(2 * past * size + total) // (2 * total) if past else 0 for size in sizes]
    due = [(Fraction(2 * had[bucket] + 1, size), bucket) for bucket, size in enumerate(sizes)]
    heapq.heapify(due)
    for _ in range(step - sum(had)):
        _, bucket = due[0]
        had[bucket] += 1
        heapq.heapreplace(due, (Fraction(2 * had[bucket] + 1, sizes[bucket]), bucket))
    bucket = due[0][1]
    return bucket, had[bucket]


def _split_holdout(
    task: Task, records: Records, holdout: float
) -> tuple[tuple[Bucket, ...], tuple[Bucket, ...]]:
    """The buckets of a task's samples: trained on, and held out."""
    capacities = task.get_capacities(records)
    usable = np.flatnonzero(capacities >= 0)
    if not len(usable):
        raise RepriseError(
            f"task {task.name}: none of the {len(records)} samples in {task.latents} can be used: "
            "do they have references of the variants that the mixture names?"
        )
    sources = records.get_column("source_id") if holdout else []
    held = np.zeros(len(records), bool)
    for row in usable if holdout else ():
        held[row] = random_streams.derive_share(sources[row], "holdout") < holdout
    trained = _group_buckets(records, capacities, usable[~held[usable]])
    if not trained:
        raise RepriseError(f"task {task.name}: validation.holdout leaves no sample to train on: lower it")
    return trained, _group_buckets(records, capacities, usable[held[usable]])


def _group_buckets(
    records: Records, capacities: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[Bucket, ...]:
    keys = np.column_stack([records.sizes[rows].astype(np.int64), capacities[rows]])
    found, which = np.unique(keys, axis=0, return_inverse=True)
    return tuple(
        Bucket((int(key[0]), int(key[1]), int(key[2])), int(key[3]), rows[which.reshape(-1) == number])
        for number, key in enumerate(found)
    )
