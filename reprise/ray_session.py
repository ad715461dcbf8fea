"""Ray: started on this machine and stopped afterwards, or a cluster that is there already."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray

from curation.config import CurationConfig
from reprise.errors import RepriseError

_LOCAL_STORE_BYTES = 2 << 30
_START_ATTEMPTS = 2  # of Ray: it allows its own processes half a minute, which a busy machine may exceed
_SCRATCH_PREFIX = "reprise-run-"

# Enters with a running Ray; gives the folder for temporary files of workers here, None on a cluster.
SessionOpener = Callable[[CurationConfig], contextlib.AbstractContextManager[str | None]]


@contextlib.contextmanager
def start_ray_early(config: CurationConfig) -> Iterator[SessionOpener]:
    """Begin to start Ray, which is two seconds of waiting, while the body goes on.

    Yields what stands for `started` later on. Where that is not called, Ray is stopped at the end, too.
    """
    ready: Future[str | None] = Future()
    stop_event = threading.Event()

    def hold_session() -> None:
        # Ray's processes end with the thread that started them, so that this one stays until they may.
        try:
            with open_ray_session(config) as scratch:
                ready.set_result(scratch)
                stop_event.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=hold_session, name="reprise-ray", daemon=True)

    def stop_session() -> None:
        stop_event.set()
        thread.join()

    previous_handler = signal.getsignal(signal.SIGTERM)

    @contextlib.contextmanager
    def join_session(_: CurationConfig) -> Iterator[str | None]:
        try:
            scratch = ready.result()
            _restore_sigterm_handler(previous_handler)
            yield scratch
        finally:
            stop_session()

    thread.start()
    try:
        yield join_session
    finally:
        stop_session()


@contextlib.contextmanager
def open_ray_session(config: CurationConfig) -> Iterator[str | None]:
    """Connect to the cluster of `engine.address` or RAY_ADDRESS, or start Ray here and stop it afterwards.

    Yields the folder for temporary files of workers on this machine, or None on a cluster.

    Raises:
        RepriseError: no cluster at that address, or Ray does not start.
    """
    if ray.is_initialized():
        yield None
        return
    engine = config.engine
    address = engine.address or os.environ.get("RAY_ADDRESS")
    # Ray's own words are for its developers; every failed item says why in its row.
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    previous_handler = signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        scratch = None
        if address and address != "local":
            _init_ray(f"no Ray cluster answers at {address}", address=address, **quiet)
        else:
            scratch = stack.enter_context(_make_scratch_folder())
            _init_ray(
                "Ray does not start on this machine",
                attempts=_START_ATTEMPTS,
                address="local",
                num_cpus=engine.num_cpus,
                object_store_memory=_choose_store_bytes(engine.object_store_mb),
                include_dashboard=False,
                **quiet,
            )
        stack.callback(_stop_ray)
        _restore_sigterm_handler(previous_handler)
        yield scratch


def _stop_ray() -> None:
    """Stop Ray. Its objects that are collected while it goes down, in whichever thread, end the program."""
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _restore_sigterm_handler(handler: Any) -> None:
    """Ray answers SIGTERM with a stack trace and an abort."""
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def _init_ray(problem: str, *, attempts: int = 1, **settings: Any) -> None:
    for left in reversed(range(attempts)):
        try:
            ray.init(**settings)
            return
        except Exception as error:  # Ray raises this very class, too
            ray.shutdown()
            if not left:
                message = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise RepriseError(f"{problem}: {message}") from error


@contextlib.contextmanager
def _make_scratch_folder() -> Iterator[str]:
    """A folder for temporary files, without those that killed runs have left: nobody locks them."""
    for other in Path(tempfile.gettempdir()).glob(f"{_SCRATCH_PREFIX}*"):
        with contextlib.suppress(OSError), _lock_folder(other):
            shutil.rmtree(other)
    with (
        tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, ignore_cleanup_errors=True) as folder,
        _lock_folder(Path(folder)),
    ):
        yield folder


@contextlib.contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder; the system lets go when this process ends, however it does.

    Raises:
        OSError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _choose_store_bytes(megabytes: int | None) -> int:
    if megabytes:
        return megabytes << 20
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            memory = min(memory, int(Path(file).read_text()))
    return min(_LOCAL_STORE_BYTES, int(0.3 * memory))
