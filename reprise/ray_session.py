"""The Ray session of a run: connect to a cluster, or start Ray on this machine and stop it afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprise.errors import RepriseError, StoppedRunError

_LOCAL_STORE_BYTES = 2 << 30
_WATCH_SECONDS = 0.5
_UNWIND_SECONDS = 8.0  # Ray ends this process about 15 s after its raylet
_RAYLET_DIED = "Ray's process raylet died; finished work is kept: run the same command again to go on"
EXIT_STOPPED = 75  # exit status: stopped, and the same command goes on (EX_TEMPFAIL of sysexits.h)
_START_ATTEMPTS = 2  # Ray gives its own processes 30 seconds to start, which a busy machine may exceed
_PROBE_SECONDS = 5.0
_SCRATCH_PREFIX = "reprise-run-"
# How each HTTP/2 connection begins (RFC 9113, section 3.4), with an empty SETTINGS frame. The head of a Ray
# cluster is a gRPC server, which answers with a SETTINGS frame of its own.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_UV_SWITCH = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"


@dataclass(frozen=True)
class RaySession:
    """A running Ray, as `ray_session` yields it."""

    started_here: bool  # False: a cluster, or a Ray that the caller had started
    scratch: str | None = None  # folder for temporary files of workers; None where Ray was not started here


@contextlib.contextmanager
def ray_session(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    min_cpus: float | None = None,
    object_store_mb: int | None = None,
) -> Iterator[RaySession]:
    """Connect to a cluster, or start Ray on this machine and stop it afterwards.

    A Ray that is running in this process is used as it is.

    Args:
        address: `host:port`, `ray://host:port`, "auto" or "local"; default: RAY_ADDRESS, else "local".
        num_cpus: CPUs of a Ray that is started here; default: the machine's.
        min_cpus: the least number of CPUs of a Ray that is started here. Workers may outnumber the cores.
        object_store_mb: shared memory of a Ray that is started here, in MiB; default: 2 GiB, at most 30 % of
            the memory.

    Raises:
        RepriseError: no cluster answers at the address, or Ray does not start.
        StoppedRunError: a Ray that was started here has died.
    """
    import ray  # takes a second, so only where Ray is needed

    if ray.is_initialized():
        yield RaySession(started_here=False)
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with contextlib.ExitStack() as stack:
        if address == "local":
            scratch = stack.enter_context(_make_scratch_folder())
            session = RaySession(started_here=True, scratch=scratch)
            settings: dict[str, Any] = {
                "address": "local",
                "num_cpus": _choose_cpus(num_cpus, min_cpus),
                "object_store_memory": _choose_store_bytes(object_store_mb),
                "include_dashboard": False,
            }
            failure, attempts = "Ray does not start on this machine", _START_ATTEMPTS
        else:
            failure, attempts = f"no Ray cluster answers at {address}", 1
            _probe_cluster(address, failure)
            session, settings = RaySession(started_here=False), {"address": address}
        stack.callback(_stop_ray)  # before Ray is started: it also ends what an interrupted start has left
        _init_ray(settings, failure, attempts)
        if not session.started_here:
            yield session
            return
        with _watch_raylet() as died:
            try:
                yield session
            except (Exception, KeyboardInterrupt):
                if not died.wait(2 * _WATCH_SECONDS):
                    raise
                raise StoppedRunError(_RAYLET_DIED) from None  # what was raised follows from it


def _stop_ray() -> None:
    """Stop Ray. If its raylet is dead, its other processes are killed first: they would wait for it."""
    import ray
    from ray._private import worker

    raylet = _find_raylet()
    if raylet is not None and raylet.poll() is not None:
        with contextlib.suppress(Exception):  # whatever is left ends with this process
            worker._global_node.kill_all_processes(check_alive=False, allow_graceful=False)
    ray.shutdown()


@contextlib.contextmanager
def _watch_raylet() -> Iterator[threading.Event]:
    """Interrupt the main thread when the raylet that was started here dies, and set the event.

    Ray itself would end this process some seconds later, with status 1 and without a word.
    """
    raylet = _find_raylet()
    died, done = threading.Event(), threading.Event()

    def wait_for_death() -> None:
        while not done.wait(_WATCH_SECONDS):
            if raylet is not None and raylet.poll() is not None:
                died.set()
                os.kill(os.getpid(), signal.SIGINT)
                if not done.wait(_UNWIND_SECONDS):  # something waits for Ray without end
                    sys.stderr.write(f"stopped {_RAYLET_DIED}\n")
                    sys.stderr.flush()
                    os._exit(EXIT_STOPPED)
                return

    thread = threading.Thread(target=wait_for_death, daemon=True)
    thread.start()
    try:
        yield died
    finally:
        done.set()


def _find_raylet() -> subprocess.Popen[bytes] | None:
    """The process of the raylet that was started here; None if Ray does not say."""
    from ray._private import worker

    processes = getattr(worker._global_node, "all_processes", None) or {}
    found = next(iter(processes.get("raylet", [])), None)
    return getattr(found, "process", None)


def _init_ray(settings: dict[str, Any], failure: str, attempts: int) -> None:
    """Call `ray.init`, several times where it fails.

    Raises:
        RepriseError: `failure` and Ray's reason.
    """
    import ray
    from ray._private import ray_constants

    if _UV_SWITCH not in os.environ:
        # Under `uv run`, Ray would upload the working folder. It read the environment on import.
        os.environ[_UV_SWITCH] = "0"
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    # Ray's C++ code prints what no user can act on, such as a warning for each pool of actors.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    previous_handler = signal.getsignal(signal.SIGTERM)
    for left in reversed(range(attempts)):
        try:
            # Ray's log is for its developers. What is wrong with an item comes with its result.
            with _mute_stderr():
                ray.init(**settings, logging_level=logging.ERROR, log_to_driver=False)
            break
        except SystemExit as stop:  # Ray's own handler of SIGTERM
            raise KeyboardInterrupt from stop
        except Exception as error:  # `ray.init` raises Exception itself, too
            ray.shutdown()
            if not left:
                message = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise RepriseError(f"{failure}: {message}") from error
        finally:
            if threading.current_thread() is threading.main_thread() and previous_handler is not None:
                # Ray's handler prints a stack trace and exits without a word on how to go on.
                signal.signal(signal.SIGTERM, previous_handler)


@contextlib.contextmanager
def _mute_stderr() -> Iterator[None]:
    """Drop what C++ code prints to stderr: Ray prints a line there that its log level was set."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _probe_cluster(address: str, failure: str) -> None:
    """Check that a cluster answers. `ray.init` would wait for minutes, in code that no signal interrupts.

    Raises:
        RepriseError: it does not.
    """
    hint = "check the address, engine.address or run.address in the config, and RAY_ADDRESS"
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        try:
            address = canonicalize_bootstrap_address(address) or address
        except (ConnectionError, ValueError) as error:
            raise RepriseError(f"{failure}: none was started on this machine; {hint}") from error
    found = re.fullmatch(r"(?:ray://)?\[?(?P<host>[^/\]]+)\]?:(?P<port>\d+)", address)
    if not found:
        return  # a scheme of a Ray provider: only Ray knows what it means
    try:
        with socket.create_connection((found["host"], int(found["port"])), _PROBE_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                connection.sendall(_HTTP2_PREFACE)
                if not connection.recv(1):
                    raise ConnectionError("the connection was closed")
    except OverflowError as error:
        raise RepriseError(f"{failure}: no port has the number {found['port']}") from error
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        raise RepriseError(f"{failure}: {reason}; {hint}") from error


@contextlib.contextmanager
def _make_scratch_folder() -> Iterator[str]:
    """Make a folder for temporary files. Remove those of killed runs, which no process locks any more."""
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
    """Hold a lock on a folder. The system releases it when this process ends for whatever reason.

    Raises:
        OSError: another process holds the lock.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _choose_cpus(num_cpus: float | None, min_cpus: float | None) -> float | None:
    """CPUs of a Ray that is started here; None: Ray counts them."""
    if num_cpus is None and min_cpus is not None:
        return max(os.cpu_count() or 1, math.ceil(min_cpus))
    return num_cpus


def _choose_store_bytes(megabytes: int | None) -> int:
    """Bytes of the object store of a Ray that is started here."""
    if megabytes:
        return megabytes << 20
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            memory = min(memory, int(Path(file).read_text()))
    return min(_LOCAL_STORE_BYTES, int(0.3 * memory))
