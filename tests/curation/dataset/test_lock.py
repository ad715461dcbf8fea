"""One writer at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curation.dataset.lock import FolderLock, lock_dataset
from reprise.errors import RepriseError
from reprise.storage import Storage


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    dataset = Storage.from_uri(tmp_path)
    with lock_dataset(dataset):
        with pytest.raises(RepriseError, match="another run is writing"), lock_dataset(dataset):
            pass
        with pytest.raises(RepriseError, match="another run is writing"), lock_dataset(dataset):
            pass
    with lock_dataset(dataset):
        pass


def test_a_failure_releases_the_lock(tmp_path: Path) -> None:
    dataset = Storage.from_uri(tmp_path)
    with pytest.raises(KeyboardInterrupt), lock_dataset(dataset):
        raise KeyboardInterrupt
    with lock_dataset(dataset):
        pass


def test_other_datasets_are_not_locked(tmp_path: Path) -> None:
    with (
        lock_dataset(Storage.from_uri(tmp_path / "a"), create=True),
        lock_dataset(Storage.from_uri(tmp_path / "b"), create=True),
    ):
        pass


def test_the_folder_is_made_only_on_request(tmp_path: Path) -> None:
    dataset = Storage.from_uri(tmp_path / "dataset")
    with lock_dataset(dataset):
        assert not (tmp_path / "dataset").exists()
    with lock_dataset(dataset, create=True):
        assert (tmp_path / "dataset").is_dir()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        acquired = FolderLock(tmp_path).acquire()
        os.write(writer, b"1" if acquired else b"0")
        os.kill(os.getpid(), 9)
    assert os.read(reader, 1) == b"1"
    os.waitpid(child, 0)
    for end in (reader, writer):
        os.close(end)
    lock = FolderLock(tmp_path)
    assert lock.acquire()
    lock.release()
