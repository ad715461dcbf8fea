"""One process writes a folder, or any number read it: on a disk and on S3."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest

from reprise.errors import StorageError
from reprise.lock import lease, lock_folder
from reprise.lock.holder import LockHolder
from reprise.lock.local import LocalLock
from reprise.storage import Storage
from tests.s3 import S3

LOCK_FILE = ".reprise-lock.json"


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return Storage.from_uri(tmp_path)
    return Storage.from_uri(f"{request.getfixturevalue('s3').uri}/dataset")


def test_a_second_writer_is_refused_until_the_first_is_done(folder: Storage) -> None:
    with lock_folder(folder):
        for _ in range(2):
            with pytest.raises(StorageError, match="another run is writing"), lock_folder(folder):
                pass
    with lock_folder(folder):
        pass


def test_readers_share_a_folder_and_keep_writers_out(folder: Storage) -> None:
    with (
        lock_folder(folder, shared=True),
        lock_folder(folder, shared=True),
        pytest.raises(StorageError, match=r"another run is (using|reading)"),
        lock_folder(folder),
    ):
        pass
    with (
        lock_folder(folder),
        pytest.raises(StorageError, match="another run is writing"),
        lock_folder(folder, shared=True),
    ):
        pass
    with lock_folder(folder):
        pass


def test_the_refused_are_told_who_holds_the_lock_and_since_when(folder: Storage) -> None:
    with lock_folder(folder):
        with pytest.raises(StorageError) as refused, lock_folder(folder):
            pass
        message = str(refused.value)
        assert f"process {os.getpid()}" in message
        assert f"since {datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H}" in message
        assert "wait for it or stop it" in message
        assert len(message.splitlines()) == 1


def test_no_listing_shows_a_lock_and_none_is_left(folder: Storage) -> None:
    folder.write_bytes("rows", b"1")
    with lock_folder(folder):
        assert folder.list_paths() == ["rows"]
        assert folder.is_file(LOCK_FILE)
    with lock_folder(folder, shared=True):
        assert folder.list_paths() == ["rows"]
    assert not folder.is_file(LOCK_FILE)


@pytest.mark.parametrize("shared", [False, True])
def test_a_failure_releases_the_lock(folder: Storage, shared: bool) -> None:
    with pytest.raises(KeyboardInterrupt), lock_folder(folder, shared=shared):
        raise KeyboardInterrupt
    with lock_folder(folder):
        pass


def test_other_folders_are_not_locked(folder: Storage) -> None:
    with (
        lock_folder(folder.get_subfolder("a"), create=True),
        lock_folder(folder.get_subfolder("b"), create=True),
    ):
        pass


def test_a_local_folder_is_made_only_if_it_is_asked_for(tmp_path: Path) -> None:
    folder = Storage.from_uri(tmp_path / "dataset")
    with lock_folder(folder):
        assert not (tmp_path / "dataset").exists()
    with lock_folder(folder, create=True):
        assert (tmp_path / "dataset").is_dir()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        LocalLock(tmp_path, shared=False).acquire()
        os.write(writer, b"1")
        os.kill(os.getpid(), 9)
    assert os.read(reader, 1) == b"1"
    os.waitpid(child, 0)
    for end in (reader, writer):
        os.close(end)
    assert (tmp_path / LOCK_FILE).exists()
    with lock_folder(Storage.from_uri(tmp_path)):
        pass
    assert not (tmp_path / LOCK_FILE).exists()


# ---- leases ----------------------------------------------------------------------------------------------


def put_lease(s3: S3, **changes: Any) -> None:
    """The lease of a process on another machine."""
    fields = {**json.loads(LockHolder.from_process().encode()), "machine": "elsewhere", **changes}
    s3.put(f"dataset/{LOCK_FILE}", json.dumps(fields).encode())


def test_a_lease_that_nobody_renews_ends_by_itself(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Storage.from_uri(f"{s3.uri}/dataset")
    put_lease(s3, host="far", pid=7)
    with (
        pytest.raises(StorageError, match=r"on far, process 7.*its lock ends by itself in 1[78]\d s"),
        lock_folder(folder),
    ):
        pass
    monkeypatch.setattr(lease, "EXPIRY_S", -1.0)
    with lock_folder(folder):
        held = json.loads(s3.get(f"dataset/{LOCK_FILE}"))
        assert held["pid"] == os.getpid()
    assert f"dataset/{LOCK_FILE}" not in set(s3.keys())


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(s3: S3) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    mine = LockHolder.from_process()
    put_lease(s3, pid=child, machine=mine.machine)
    with lock_folder(Storage.from_uri(f"{s3.uri}/dataset")):
        pass


def test_a_lease_is_renewed_while_it_is_held(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_S", 0.05)
    with lock_folder(Storage.from_uri(f"{s3.uri}/dataset")) as lock:
        lease_object: Any = lock
        first = lease_object._renewed
        lease_object._stop.wait(0.5)
        assert lease_object._renewed > first
        lock.check_held()


def test_a_run_that_lost_its_lease_ends(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_S", 0.05)
    folder = Storage.from_uri(f"{s3.uri}/dataset")
    with pytest.raises(StorageError, match=r"the lock of .* was lost"), lock_folder(folder) as lock:
        put_lease(s3, token="another")
        lease_object: Any = lock
        lease_object._thread.join(5)
        assert lock.is_lost
        lock.check_held()
    assert f"dataset/{LOCK_FILE}" in set(s3.keys()), "the lease of the other run stays"


def test_a_request_whose_answer_was_lost_does_not_lock_out_its_sender(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lease.S3Lease._put

    def send_twice(self: lease.S3Lease, condition: dict[str, str] | None) -> str:
        whole(self, condition)
        return whole(self, condition)  # as the client repeats a request that got no answer

    monkeypatch.setattr(lease.S3Lease, "_put", send_twice)
    with lock_folder(Storage.from_uri(f"{s3.uri}/dataset")) as lock:
        lease_object: Any = lock
        lease_object._renew()
        lock.check_held()
