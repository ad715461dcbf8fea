"""Loading the batches of a rank in advance, in background threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from reprise.errors import DamagedDataError, RepriseError
from training.config import DataConfig
from training.data.bad_samples import BadSamples
from training.data.sampler import Sampler, StepPlan
from training.data.samples import Batch, LatentSample, SampleRecord
from training.latents.store import Latents
from training.tasks.task import Task


class StepBatches:
    """One step of one rank; iterate over it once for its micro batches."""

    def __init__(self, plan: StepPlan, micro_steps: int) -> None:
        self.plan, self.micro_steps = plan, micro_steps
        self.wait_seconds = 0.0  # seconds spent waiting for batches so far
        self._batches: Iterator[Batch] = iter(())

    def __iter__(self) -> Iterator[Batch]:
        return self._batches


class Loader:
    """Batches of one data rank, in order.

    Threads of this process read the samples; reading bytes releases Python's lock. The content of a batch
    does not depend on the number of threads.

    Args:
        sampler: chooses the samples of a step.
        latents: by the name of the task.
        rank: data rank. Workers that share a sequence pass the same.
        ranks: number of data ranks.
        threads: samples read at the same time.
        prefetch: micro batches that are ready or being read beyond the one in use.
        pin_memory: batches are in page-locked memory, for asynchronous copies to a GPU.
        data: what happens to damaged samples.
    """

    def __init__(
        self,
        sampler: Sampler,
        latents: Mapping[str, Latents],
        *,
        rank: int = 0,
        ranks: int = 1,
        threads: int = 4,
        prefetch: int = 4,
        pin_memory: bool = False,
        data: DataConfig | None = None,
    ) -> None:
        self.sampler, self.latents = sampler, latents
        self.rank, self.ranks = rank, ranks
        self.threads, self.prefetch, self.pin_memory = threads, prefetch, pin_memory
        self.bad = BadSamples(data or DataConfig())
        self._tasks: dict[str, Task] = {task.name: task for task in sampler.tasks}

    def iterate_steps(self, start: int, stop: int) -> Iterator[StepBatches]:
        """Yield the steps from `start` to `stop` - 1. A step's unused micro batches are skipped."""
        readers = ThreadPoolExecutor(self.threads, thread_name_prefix="read-latents")
        # A separate pool: it waits for readers, so it must not block one of them.
        assembler = ThreadPoolExecutor(1, thread_name_prefix="assemble-batch")
        coming: deque[Future[Batch]] = deque()
        jobs = self._iterate_jobs(start, stop)

        def fill_queue() -> None:
            while len(coming) <= self.prefetch:
                job = next(jobs, None)
                if job is None:
                    return
                plan, pairs = job
                read = [readers.submit(self._read_sample, plan, index, row) for index, row in pairs]
                coming.append(assembler.submit(self._assemble_batch, plan, read))

        def take_batches(step: StepBatches) -> Iterator[Batch]:
            for _ in range(step.micro_steps):
                fill_queue()
                began = time.perf_counter()
                batch = coming.popleft().result()
                step.wait_seconds += time.perf_counter() - began
                fill_queue()
                yield batch

        try:
            for number in range(start, stop):
                plan = self.sampler.plan_step(number)
                step = StepBatches(
                    plan, plan.count_micro_steps(self.ranks, self._tasks[plan.task].micro_batch)
                )
                step._batches = take_batches(step)
                yield step
                for _ in step:
                    pass
        finally:
            assembler.shutdown(wait=False, cancel_futures=True)
            readers.shutdown(wait=False, cancel_futures=True)

    def read_batch(self, plan: StepPlan, micro_step: int) -> Batch:
        """Read one micro batch now, without prefetching."""
        pairs = plan.slice_samples(self.rank, self.ranks, micro_step, self._tasks[plan.task].micro_batch)
        return self._collate_batch(plan, [self._read_sample(plan, index, row) for index, row in pairs])

    def _iterate_jobs(self, start: int, stop: int) -> Iterator[tuple[StepPlan, list[tuple[int, int]]]]:
        for number in range(start, stop):
            plan = self.sampler.plan_step(number)
            micro_batch = self._tasks[plan.task].micro_batch
            for micro_step in range(plan.count_micro_steps(self.ranks, micro_batch)):
                yield plan, plan.slice_samples(self.rank, self.ranks, micro_step, micro_batch)

    def _read_sample(self, plan: StepPlan, index: int, row: int) -> LatentSample:
        try:
            return self._read_row(plan, index, row)
        except DamagedDataError as error:
            self._add_bad_row(plan, row, error)
        # The next one of the bucket serves: this depends on the disk alone, not on workers or on resuming.
        for substitute in self.sampler.list_substitutes(plan, row)[1:]:
            try:
                return self._read_row(plan, index, substitute)
            except DamagedDataError as error:
                self._add_bad_row(plan, substitute, error)
        size = "x".join(str(side) for side in plan.size)
        raise RepriseError(f"every sample of task {plan.task} in the bucket {size} is damaged: encode again")

    def _read_row(self, plan: StepPlan, index: int, row: int) -> LatentSample:
        latents = self.latents[plan.task]
        record = latents.records[row]
        name = _get_bad_name(record)
        if name in self.bad:
            raise DamagedDataError(self.bad.get_reasons()[name])
        return latents.read_sample(index, record, self.sampler.draw_choice(plan, index, record))

    def _add_bad_row(self, plan: StepPlan, row: int, error: DamagedDataError) -> None:
        self.bad.add_sample(_get_bad_name(self.latents[plan.task].records[row]), error)

    def _assemble_batch(self, plan: StepPlan, samples: list[Future[LatentSample]]) -> Batch:
        batch = self._collate_batch(plan, [sample.result() for sample in samples])
        return batch.pin_memory() if self.pin_memory else batch

    def _collate_batch(self, plan: StepPlan, samples: list[LatentSample]) -> Batch:
        return self._tasks[plan.task].collate_samples(samples, self.latents[plan.task].manifest.text.length)


def _get_bad_name(record: SampleRecord) -> str:
    """The name of a damaged sample: a shard's name is a hash, so that it tells folders of latents apart."""
    return f"{record.shard}/{record.sample_id}"
