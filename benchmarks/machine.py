"""The machine of a benchmark, and the memory of its processes."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """Describe processor, usable cores, memory (GB) and the load before the benchmark."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:  # not Linux
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": count_cores(),
        "memory_gb": round(memory / 1e9, 1),
        "python": platform.python_version(),
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 1),  # other work on the machine disturbs a benchmark
    }


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def list_process_family(pid: int) -> set[int]:
    """List a process and its descendants. On other systems than Linux: only the process."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # the process has ended
            continue
        children[parent].append(int(folder.name))
    found: set[int] = set()
    left = [pid]
    while left:
        found.add(each := left.pop())
        left += children[each]
    return found


def measure_proportional_bytes(pid: int) -> int:
    """Measure a process's memory. Shared pages are divided among their users (PSS), so sums are right."""
    return _read_field(pid, "smaps_rollup", "Pss:")


def measure_resident_bytes(pid: int) -> int:
    """Measure a process's memory without shared memory, that is, without Ray's object store."""
    return _read_field(pid, "status", "RssAnon:") + _read_field(pid, "status", "RssFile:")


def _read_field(pid: int, file: str, name: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0
