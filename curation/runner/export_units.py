"""Units of an export on Ray: a few more tasks than cores are under way, results come as they are finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from curation.export.plan import ExportUnit
from curation.export.write import ExportJob, UnitResult, write_unit
from curation.runner.ray_tasks import get_results
from reprise.errors import TransientStorageError
from reprise.ray_session import ray_session

_TASKS_PER_CORE = 2  # under way, so that no core waits for the next
_RETRIES = 2  # of a task whose worker died, or that met a storage error that may pass


def execute_units(job: ExportJob, units: Sequence[ExportUnit]) -> Iterator[tuple[ExportUnit, UnitResult]]:
    """Write units wherever Ray is; a single one is written here, without Ray.

    Raises:
        RepriseError: a unit cannot be written, or workers died again and again.
    """
    if len(units) <= 1:
        for unit in units:
            yield unit, write_unit(job, unit)
        return
    import ray

    with ray_session(job.config.engine.address):
        write = ray.remote(num_cpus=1, max_retries=_RETRIES, retry_exceptions=[TransientStorageError])(
            write_unit
        )
        shared = ray.put(job)
        most = _TASKS_PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 1)))
        left = iter(units)
        running = {}
        for unit in left:
            running[write.remote(shared, unit)] = unit
            if len(running) >= most:
                break
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            unit = running.pop(done[0])
            yield unit, get_results(done, "exporting")[0]
            following = next(left, None)
            if following is not None:
                running[write.remote(shared, following)] = following
