"""Run units of encoding on Ray Data. A worker loads the encoders once and yields the outcome of each item."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from reprise.errors import RepriseError
from reprise.ray_session import ray_session
from reprise.worker_errors import decode_error, encode_error
from training.latents.config import EncodeEngineConfig
from training.latents.encode import EncodeJob, ItemOutcome, WorkUnit, encode_unit
from training.latents.encoders import Encoders
from training.latents.sources.source import PlannedItem

_TASK_RETRIES = 2  # of a unit whose worker died; the default of Ray Data retries without end
_MAX_BLOCKS = 20_000
# The outcome of an item, or an error that stops the run.
_OUTCOME_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("sample_id", "key", "reason", "message", "error")]
)


def execute_on_ray(job: EncodeJob, units: Sequence[WorkUnit]) -> Iterator[ItemOutcome]:
    """Encode units on a Ray cluster, or on Ray that is started here; yield the outcome of each item.

    An item has no outcome if its worker died in every attempt.

    Raises:
        RepriseError: there is no cluster, or an error would also stop every other unit.
        RuntimeError: a bug; the message has the traceback of the worker.
    """
    import ray.data
    from ray.data import ActorPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with ray_session(job.config.engine.address):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # only a dead worker is an errored block; other errors come as rows
        context.target_max_block_size = 1  # pass each yielded table on immediately
        rows = [{"unit": json.dumps([asdict(planned) for planned in unit])} for unit in units]
        workers, gpus = _plan_workers(job.config.engine, len(units), ray.cluster_resources())
        ds = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
        with warnings.catch_warnings():
            # Ray deprecates these restarts and retries, but has no replacement yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            ds = ds.map_batches(
                EncodeWorker,
                fn_constructor_args=(job,),
                batch_size=1,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=workers),
                num_cpus=job.config.engine.cpus,
                num_gpus=gpus or None,
                max_restarts=_TASK_RETRIES * len(units),
                max_task_retries=_TASK_RETRIES,
            )
        for batch in ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                error = row.pop("error")
                if error:
                    raise decode_error(error)
                yield ItemOutcome(**row)


class EncodeWorker:
    """An actor that holds the encoders."""

    def __init__(self, job: EncodeJob) -> None:
        self._job = job
        self._encoders: Encoders | None = None

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Encode the units of a batch; yield a table of `_OUTCOME_SCHEMA` for each item, or for an error."""
        try:
            if self._encoders is None:
                # Not in the constructor: Ray restarts an actor without end if its constructor fails.
                import torch

                torch.set_num_threads(max(1, math.ceil(self._job.config.engine.cpus)))
                self._encoders = Encoders(self._job.facts, self._job.config)
            for text in batch["unit"].to_pylist():
                unit = tuple(_decode_planned(values) for values in json.loads(text))
                for outcome in encode_unit(self._job, unit, self._encoders):
                    yield pa.Table.from_pylist([asdict(outcome)], schema=_OUTCOME_SCHEMA)
        except Exception as error:
            yield pa.Table.from_pylist([{"error": encode_error(error)}], schema=_OUTCOME_SCHEMA)


def _decode_planned(values: dict[str, Any]) -> PlannedItem:
    file, row = values.pop("place")
    return PlannedItem(**values, place=(file, row))


def _plan_workers(engine: EncodeEngineConfig, units: int, resources: dict[str, float]) -> tuple[int, float]:
    """Return the number of workers, and the number of GPUs of each.

    Raises:
        RepriseError: a worker needs more GPUs than the cluster has.
    """
    there = resources.get("GPU", 0.0)
    gpus = (1.0 if there else 0.0) if engine.gpus == -1 else engine.gpus
    if gpus > there:
        raise RepriseError(f"engine.gpus is {gpus:g}, but the cluster has {there:g}; 0 encodes on CPUs")
    most = int(there / gpus) if gpus else 1
    return min(units, engine.workers or max(1, most)), gpus
