"""A Ray session starts, ends, and does not wait for a cluster that is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprise import ray_session as module
from reprise.errors import RepriseError
from reprise.ray_session import ray_session


@pytest.fixture
def silent_address() -> Iterator[str]:
    """The address of a program that accepts connections and sends nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_stale_address_is_one_clear_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    started = time.monotonic()
    with (
        pytest.raises(RepriseError, match=r"no Ray cluster answers at 127\.0\.0\.1:1: connection refused"),
        ray_session(),
    ):
        pass
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:99999"])
def test_every_form_of_a_wrong_address_is_named(address: str) -> None:
    with pytest.raises(RepriseError, match=f"no Ray cluster answers at {address}"), ray_session(address):
        pass


def test_a_program_that_is_no_cluster_is_given_up_soon(
    silent_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROBE_SECONDS", 0.5)
    with (
        pytest.raises(RepriseError, match=f"answers at {silent_address}: timed out"),
        ray_session(silent_address),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_the_wait_for_a_cluster(silent_address: str, number: signal.Signals) -> None:
    script = (
        "import signal, ray\n"
        "from reprise import ray_session as module\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "module._PROBE_SECONDS = 60\n"
        "print('ready', flush=True)\n"
        f"with module.ray_session({silent_address!r}): pass\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(number)
        error = process.communicate(timeout=10)[1]
    assert "KeyboardInterrupt" in error


@pytest.mark.ray
def test_a_session_on_this_machine_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private import ray_constants

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", raising=False)
    previous_handler = signal.getsignal(signal.SIGTERM)
    with ray_session(num_cpus=3, object_store_mb=100) as session:
        assert session.started_here and session.scratch and Path(session.scratch).is_dir()
        assert ray.cluster_resources()["CPU"] == 3
        assert ray.cluster_resources()["object_store_memory"] == 100 << 20
        assert signal.getsignal(signal.SIGTERM) is previous_handler
        assert not ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
        address = ray.get_runtime_context().gcs_address
        with ray_session() as inner:
            assert not inner.started_here and inner.scratch is None
        assert ray.is_initialized()
        module._probe_cluster(address, "no cluster")
    assert not ray.is_initialized()
    assert not Path(session.scratch).exists()
    with pytest.raises(RepriseError):
        module._probe_cluster(address, "no cluster")


def test_scratch_folders_of_killed_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "reprise-run-killed").mkdir()
    with module._make_scratch_folder() as living, module._make_scratch_folder() as other:
        assert {*tmp_path.iterdir()} == {Path(living), Path(other)}
    assert not [*tmp_path.iterdir()]


def test_the_log_of_rays_own_code_stays_off_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str | None] = []
    monkeypatch.setattr("ray.init", lambda **_: levels.append(os.environ.get("RAY_BACKEND_LOG_LEVEL")))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    for before in (None, "info"):
        monkeypatch.delenv("RAY_BACKEND_LOG_LEVEL", raising=False)
        if before:
            monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", before)
        with ray_session():
            pass
    assert levels == ["fatal", "info"]


def test_a_failed_start_is_repeated_and_then_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    attempts: list[str] = []

    def fail(address: str, **settings: object) -> None:
        attempts.append(address)
        raise RuntimeError("no room\nand pages of details")

    monkeypatch.setattr(ray, "init", fail)
    with (
        pytest.raises(RepriseError, match=r"^Ray does not start on this machine: no room$"),
        ray_session("local"),
    ):
        pass
    assert attempts == ["local", "local"]


@pytest.mark.ray
def test_the_death_of_the_raylet_ends_a_run_with_a_status_and_a_line_of_its_own() -> None:
    code = (
        "import time\n"
        "from pipelines.console import handle_errors\n"
        "from reprise import ray_session\n"
        "@handle_errors\n"
        "def run():\n"
        "    with ray_session.ray_session('local', num_cpus=1, object_store_mb=100):\n"
        "        ray_session._find_raylet().kill()\n"
        "        time.sleep(60)\n"
        "run()\n"
    )
    since = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, "run the same command again to go on" in done.stderr) == (75, True), done.stderr
    assert time.monotonic() - since < 60
