"""`ray job submit` to a cluster of its own: the way that the README shows for many machines."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.pipelines.runs import LIGHT, make_videos, rows

RAY = Path(sys.executable).with_name("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Head:
    address: str  # of its dashboard
    env: dict[str, str]  # with the token


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def head() -> Iterator[Head]:
    """A head node with ports, a folder and a token of its own: other clusters on this machine go on."""
    pytest.importorskip("ray.dashboard.optional_deps", reason='needs "ray[default]"', exc_type=ImportError)
    port, dashboard, agent, client = _free_ports(4)
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the paths of sockets are
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    options = {
        "port": port,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "num-cpus": 2,
        "object-store-memory": 100 << 20,
        "temp-dir": folder,
    }
    command = [
        str(RAY),
        "start",
        "--head",
        "--block",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    log = folder / "head.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=env, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{dashboard}"
        _wait_for(address, process, log)
        yield Head(address, env)
    finally:
        process.send_signal(
            signal.SIGTERM
        )  # ends only the cluster that it started; `ray stop` would end every cluster
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(OSError):
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=2)
                return
            except urllib.error.HTTPError:  # it wants the token, so it is there
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def test_a_submitted_job_makes_the_dataset_on_the_cluster(head: Head, tmp_path: Path) -> None:
    source, output, work = make_videos(tmp_path / "videos", 2), tmp_path / "dataset", tmp_path / "work"
    work.mkdir()
    (work / "job.yaml").write_text(yaml.safe_dump({"ground": {"frames": 1}}))
    submit = [str(RAY), "job", "submit", "--address", head.address, "--working-dir", str(work), "--"]
    curate = ["python", "-m", "pipelines.curate", "--input", str(source), "--output", str(output)]
    done = subprocess.run(
        [*submit, *curate, "--config", "job.yaml", *LIGHT],
        env=head.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 videos = 2 kept + 0 rejected + 0 failed" in done.stdout
    assert len(rows(output)) == 8
    assert (output / "report" / "index.html").is_file()
