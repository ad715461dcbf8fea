"""Files are written whole or not at all, on a disk and on S3 alike, and what goes wrong is one line."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reprise.errors import InputError, RepriseError, StorageError, TransientStorageError
from reprise.storage import Storage, fetch_file, locate_file, resolve_relative_path, split_parent
from reprise.storage import s3 as s3_module
from tests.s3 import S3

AWKWARD = [
    "plain.bin",
    "with space.bin",
    'it\'s "quoted".bin',
    "红球/视频.bin",
    "a%20b+c&d=e.bin",
    "what?.bin",
]


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The same promises on both kinds of place."""
    if request.param == "disk":
        return Storage.from_uri(tmp_path / "data set")
    return Storage.from_uri(request.getfixturevalue("s3").uri + "/data set")


def numbers(*groups: int) -> Iterator[pa.Table]:
    for count in groups:
        yield pa.table({"n": pa.array(range(count), pa.int64())})


SCHEMA = pa.schema([("n", pa.int64())])


@pytest.mark.parametrize("name", AWKWARD)
def test_what_is_written_is_read_back(store: Storage, name: str) -> None:
    store.write_bytes(name, b"one")
    store.write_bytes(name, b"two!")
    assert store.read_bytes(name) == b"two!"
    assert store.get_size(name) == 4
    assert store.exists(name) and store.is_file(name)
    assert store.list_paths() == [name]


def test_a_listing_is_sorted_recursive_and_takes_a_folder_not_the_beginning_of_a_name(store: Storage) -> None:
    for name in ["b/2.parquet", "b/1.parquet", "bc/3.parquet", "a.txt", "b/deep/er/4.parquet"]:
        store.write_bytes(name, b"x")
    assert store.list_paths() == [
        "a.txt",
        "b/1.parquet",
        "b/2.parquet",
        "b/deep/er/4.parquet",
        "bc/3.parquet",
    ]
    assert store.list_paths("b") == ["b/1.parquet", "b/2.parquet", "b/deep/er/4.parquet"]
    assert store.list_paths("b/", ".parquet") == store.list_paths("b")
    assert store.list_paths("", ".txt") == ["a.txt"]
    assert [e.path for e in store.list_files("b", depth=1)] == ["b/1.parquet", "b/2.parquet"]
    assert [e.path for e in store.list_files("", depth=2)] == [
        "a.txt",
        "b/1.parquet",
        "b/2.parquet",
        "bc/3.parquet",
    ]
    assert store.list_paths("nowhere") == []


def test_nothing_is_there_before_the_first_write(store: Storage) -> None:
    assert not store.exists() and not store.exists("x") and store.list_paths() == []
    with pytest.raises(RepriseError, match=r"no such file: .*x.bin"):
        store.read_bytes("x.bin")
    with pytest.raises(RepriseError, match=r"no such file: .*x.bin"):
        store.get_size("x.bin")


def test_deleting_what_is_missing_is_fine(store: Storage) -> None:
    store.delete_file("x")
    store.delete_tree("y")
    for name in ["keep.bin", "y/1.bin", "y/z/2.bin", "yy/3.bin"]:
        store.write_bytes(name, b"x")
    store.delete_tree("y")
    store.delete_file("keep.bin")
    assert store.list_paths() == ["yy/3.bin"]
    with pytest.raises(RepriseError, match="refusing"):
        store.delete_tree("")


@pytest.mark.parametrize("rel", ["../x", "/etc/passwd", "a/../../x", "a//b", "./x"])
def test_no_path_leads_out_of_the_place(store: Storage, rel: str) -> None:
    with pytest.raises(RepriseError, match="not a path below"):
        store.write_bytes(rel, b"x")


def test_a_copied_file_is_the_same_also_when_it_is_large(store: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(1 << 20) * 21 + b"tail")
    store.put_file(source, "clips/copy.bin")
    assert store.read_bytes("clips/copy.bin") == source.read_bytes()
    with pytest.raises(RepriseError, match=r"cannot read .*absent"):
        store.put_file(tmp_path / "absent", "x")
    assert not store.exists("x")


def test_parquet_has_one_row_group_a_table_unless_it_is_too_long(store: Storage) -> None:
    assert store.write_parquet("t.parquet", numbers(3, 5), SCHEMA) == 8
    assert store.write_parquet("u.parquet", numbers(3, 5), SCHEMA, row_group_rows=4) == 8
    groups = {}
    for name in ["t.parquet", "u.parquet"]:
        with store.open_input(name) as file:
            meta = pq.ParquetFile(file).metadata
            groups[name] = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
    assert groups == {"t.parquet": [3, 5], "u.parquet": [3, 4, 1]}
    assert store.read_table("t.parquet", ["n"])["n"].to_pylist() == [0, 1, 2, 0, 1, 2, 3, 4]


def test_a_parquet_file_without_rows_is_a_parquet_file(store: Storage) -> None:
    assert store.write_parquet("t.parquet", [], SCHEMA) == 0
    assert store.read_table("t.parquet").schema.equals(SCHEMA)


def test_a_writer_that_fails_leaves_only_the_old_file(store: Storage) -> None:
    store.write_parquet("t.parquet", numbers(2), SCHEMA)

    def failing() -> Iterator[pa.Table]:
        yield from numbers(5)
        raise ValueError("stage broke")

    with pytest.raises(ValueError, match="stage broke"):
        store.write_parquet("t.parquet", failing(), SCHEMA)
    with pytest.raises(ValueError, match="stage broke"):
        store.write_parquet("new.parquet", failing(), SCHEMA)
    assert store.read_table("t.parquet").num_rows == 2
    assert store.list_paths() == ["t.parquet"]
    if (folder := store.get_local_path()) is not None:
        assert [p.name for p in folder.iterdir()] == ["t.parquet"]


def test_an_error_of_the_generator_of_rows_is_not_reported_as_one_of_the_target(tmp_path: Path) -> None:
    def failing() -> Iterator[pa.Table]:
        (tmp_path / "elsewhere" / "absent").read_bytes()
        yield from numbers(1)

    with pytest.raises(FileNotFoundError, match="absent"):
        Storage.from_uri(tmp_path / "out").write_parquet("t.parquet", failing(), SCHEMA)


def test_a_damaged_table_and_a_missing_column_are_named(store: Storage) -> None:
    store.write_parquet("t.parquet", numbers(100), SCHEMA)
    store.write_bytes("cut.parquet", store.read_bytes("t.parquet")[:-9])
    with pytest.raises(RepriseError, match=r"cut\.parquet is damaged or not Parquet"):
        store.read_table("cut.parquet")
    with pytest.raises(RepriseError, match=r"t\.parquet has no column m"):
        store.read_table("t.parquet", ["n", "m"])


def test_a_place_travels_between_processes(store: Storage) -> None:
    store.write_bytes("a/x", b"1")  # opened before it is pickled
    there = pickle.loads(pickle.dumps(store))
    assert there == store and there.read_bytes("a/x") == b"1"


def test_fetch_gives_a_local_path_and_leaves_no_download(s3: S3, tmp_path: Path) -> None:
    near = tmp_path / "近 clip.mp4"
    near.write_bytes(b"local")
    with fetch_file(str(near)) as path:
        assert path == near
    assert near.exists()
    far = s3.put("videos/远 clip.mp4", b"remote" * 3_000_000)
    with fetch_file(far) as path:
        assert path.suffix == ".mp4" and path.read_bytes() == b"remote" * 3_000_000
    assert not path.exists() and not path.parent.exists()
    for missing in (str(tmp_path / "no.mp4"), s3.uri + "/no.mp4"):
        with pytest.raises(RepriseError, match=r"no such file: .*no\.mp4"), fetch_file(missing):
            pass


def test_local_places_know_their_path_and_are_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage.from_uri("out").uri == str(tmp_path / "out")
    assert (
        Storage.from_uri(f"file://{tmp_path}/a%20b").get_local_path("c/d.bin")
        == tmp_path / "a b" / "c" / "d.bin"
    )
    assert Storage.from_uri("s3://bucket/x").get_local_path("y") is None
    for wrong in ("https://host/x", "s3://", "gs://bucket/x"):
        with pytest.raises(RepriseError):
            Storage.from_uri(wrong)


def test_addresses_keep_their_options() -> None:
    place = Storage.from_uri("s3://b/data/?endpoint_override=127.0.0.1:9000&scheme=http")
    assert place.join_path("a/b.mp4") == "s3://b/data/a/b.mp4?endpoint_override=127.0.0.1:9000&scheme=http"
    assert split_parent("s3://b/x/y.csv?region=eu-west-1") == ("s3://b/x?region=eu-west-1", "y.csv")
    assert (
        resolve_relative_path("s3://b/x/list.csv?scheme=http", "../v/a?.mp4") == "s3://b/v/a?.mp4?scheme=http"
    )
    assert resolve_relative_path("s3://b/list.csv", "v/a.mp4") == "s3://b/v/a.mp4"
    assert resolve_relative_path("/data/list.csv", "../v/a.mp4") == "/v/a.mp4"
    assert resolve_relative_path("/data/list.csv", "s3://b/v/a.mp4") == "s3://b/v/a.mp4"
    assert resolve_relative_path("s3://b/list.csv", "/v/a.mp4") == "/v/a.mp4"


def test_an_endpoint_in_the_address_needs_no_environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    host = s3.endpoint.removeprefix("http://")
    place = Storage.from_uri(f"{s3.uri}/p?endpoint_override={host}&scheme=http")
    place.write_bytes("x", b"1")
    assert s3.get("p/x") == b"1" and place.list_paths() == ["x"]
    with fetch_file(place.join_path("x")) as path:
        assert path.read_bytes() == b"1"


# Killed and crowded writers.

_SLOW_WRITER = """
import sys, time
import pyarrow as pa
from reprise.storage import Storage
def batches():
    yield pa.table({"n": [1] * 100_000})
    print("writing", flush=True)
    time.sleep(60)
Storage.from_uri(sys.argv[1]).write_parquet("t.parquet", batches(), pa.schema([("n", pa.int64())]))
"""


def slow_writer(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_WRITER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_writer_leaves_is_not_listed_and_goes_with_the_next_one(tmp_path: Path) -> None:
    process = slow_writer(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len([*tmp_path.iterdir()]) == 1
    place = Storage.from_uri(tmp_path)
    assert place.list_paths() == [] and not place.exists("t.parquet")
    place.write_bytes("other", b"")
    assert len([*tmp_path.iterdir()]) == 2  # not its to remove
    place.write_parquet("t.parquet", numbers(1), SCHEMA)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "t.parquet"]


def test_a_living_writer_keeps_its_temporary_file(tmp_path: Path) -> None:
    process = slow_writer(tmp_path)
    try:
        Storage.from_uri(tmp_path).write_parquet("t.parquet", numbers(1), SCHEMA)
        assert len([*tmp_path.iterdir()]) == 2
    finally:
        process.kill()
        process.communicate()


def test_two_writers_of_one_name_do_not_mix(store: Storage) -> None:
    contents = [bytes([65 + i]) * 200_000 for i in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: store.write_bytes("same", data), contents * 6))
    assert store.read_bytes("same") in contents
    assert store.list_paths() == ["same"]


# What disks and stores refuse.


def test_the_error_for_a_full_disk_mentions_that_finished_work_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Storage.from_uri(tmp_path)
    place.write_bytes("done", b"1")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RepriseError, match=r"^no space left on .*: free some and run the same command again"):
        place.write_bytes("more", b"1" * 100)
    with pytest.raises(RepriseError, match="finished work is kept"):
        place.write_parquet("deep/er/t.parquet", numbers(9), SCHEMA)
    assert place.list_paths() == ["done"]


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RepriseError, match=r"permission denied: .*x"):
            Storage.from_uri(tmp_path).write_bytes("x", b"1")
    finally:
        tmp_path.chmod(0o755)


def test_a_file_where_a_folder_is_wanted_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(RepriseError, match="a file and a folder share a name"):
        Storage.from_uri(tmp_path).write_bytes("taken/x", b"1")


@pytest.mark.parametrize("action", ["list", "read", "write", "copy", "exists"])
def test_a_bucket_that_does_not_exist_is_named(s3: S3, tmp_path: Path, action: str) -> None:
    place = Storage.from_uri("s3://absent-bucket/data")
    (tmp_path / "f").write_bytes(b"1")
    actions: dict[str, Any] = {
        "list": place.list_paths,
        "read": lambda: place.read_bytes("x"),
        "write": lambda: place.write_bytes("x", b"1"),
        "copy": lambda: place.put_file(tmp_path / "f", "x"),
        "exists": lambda: place.exists("x"),
    }
    with pytest.raises(RepriseError, match=r"^no such bucket absent-bucket at http://127.0.0.1:\d+$"):
        actions[action]()


@contextlib.contextmanager
def serve_status(status: int) -> Iterator[str]:
    """A store that gives the same response to every request."""

    class Handler(BaseHTTPRequestHandler):
        def send_response_code(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = send_response_code

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"endpoint_override=127.0.0.1:{server.server_port}&scheme=http"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "access denied to s3://b/p/x.*credentials"), (301, "another region: set AWS_REGION")],
)
def test_an_error_of_a_store_is_one_line(s3: S3, status: int, message: str) -> None:
    with serve_status(status) as options:
        place = Storage.from_uri(f"s3://b/p?{options}")
        for action in (lambda: place.read_bytes("x"), lambda: place.write_bytes("x", b"1"), place.list_paths):
            with pytest.raises(RepriseError) as caught:
                action()
            assert "\n" not in str(caught.value)
        with pytest.raises(RepriseError, match=message):
            place.write_bytes("x", b"1")


@pytest.mark.parametrize("kind", ["closed port", "unknown host", "silent"])
def test_an_address_that_does_not_respond_is_reported_within_seconds(
    s3: S3, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(s3_module, "_PROBE_REQUEST_TIMEOUT", 2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = {
            "closed port": "127.0.0.1:1",
            "unknown host": "no-such-host.invalid",
            "silent": f"127.0.0.1:{silent.getsockname()[1]}",
        }[kind]
        started = time.monotonic()
        with pytest.raises(RepriseError, match=r"cannot reach bucket b at http://.*AWS_ENDPOINT_URL"):
            Storage.from_uri(f"s3://b/p?endpoint_override={endpoint}&scheme=http").list_paths()
        assert time.monotonic() - started < 12


def test_an_upload_that_fails_midway_leaves_the_old_object(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.s3.exceptions import BucketAccessDeniedError
    from moto.s3.models import S3Backend

    place = Storage.from_uri(s3.uri)
    place.write_bytes("x", b"old")
    whole = S3Backend.upload_part

    def failing(self: Any, bucket: str, upload: str, part: int, *rest: Any, **named: Any) -> Any:
        if int(part) == 2:
            raise BucketAccessDeniedError(bucket)
        return whole(self, bucket, upload, part, *rest, **named)

    monkeypatch.setattr(S3Backend, "upload_part", failing)
    large = tmp_path / "large"
    large.write_bytes(bytes(30 << 20))
    for name in ("x", "new"):
        with pytest.raises(RepriseError):
            place.put_file(large, name)
    assert s3.get("x") == b"old" and s3.keys() == ["x"]


def test_a_local_file_that_ends_early_is_never_published_short(s3: S3, tmp_path: Path) -> None:
    place = Storage.from_uri(s3.uri)
    growing = tmp_path / "f"
    growing.write_bytes(b"12345")
    honest = os.fstat

    class Longer:
        st_size = 10

    try:
        os.fstat = lambda handle: Longer()  # type: ignore[assignment, return-value]
        with pytest.raises(RepriseError, match="could not be read to its end"):
            place.put_file(growing, "x")
    finally:
        os.fstat = honest
    assert s3.keys() == []


def test_a_loop_of_links_ends_and_a_dangling_one_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(b"1")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    assert Storage.from_uri(tmp_path).list_paths() == ["a/b/x"]


# Addresses with credentials, errors that pass, and what training needs.

_SECRETS = ["hunter", "hun/ter+x", "hun@ter"]


@pytest.mark.parametrize("secret", _SECRETS)
@pytest.mark.parametrize(
    "form",
    [
        "s3://KEY:{}@bucket/prefix",
        "s3://KEY:{}@bucket",
        "gs://KEY:{}@bucket/prefix",
        "s3://bucket/prefix?scheme=http&endpoint_override=http://KEY:{}@host:9000",
    ],
)
def test_a_secret_in_an_address_is_refused_and_never_shown(secret: str, form: str) -> None:
    uri = form.format(secret)
    actions: list[Any] = [Storage.from_uri, lambda uri: fetch_file(uri).__enter__(), locate_file]
    for action in actions:
        with pytest.raises(InputError) as caught:
            action(uri)
        shown = str(caught.value) + repr(caught.value.__cause__)
        assert "hun" not in shown and "ter+x" not in shown and "ter@" not in shown and "***@" in shown


def test_an_at_sign_and_a_colon_in_a_key_are_no_credentials() -> None:
    for uri in ("s3://bucket/a:b@c/d.mp4", "s3://bucket/x?y@z", "/data/a:b@c"):
        assert Storage.from_uri(uri).uri == uri


def test_an_error_records_whether_a_retry_may_help(s3: S3, tmp_path: Path) -> None:
    with serve_status(503) as options, pytest.raises(TransientStorageError):
        Storage.from_uri(f"s3://b/p?{options}").read_bytes("x")
    with serve_status(403) as options, pytest.raises(StorageError) as caught:
        Storage.from_uri(f"s3://b/p?{options}").read_bytes("x")
    assert not isinstance(caught.value, TransientStorageError)
    with pytest.raises(StorageError) as caught:
        Storage.from_uri(tmp_path).read_bytes("absent")
    assert not isinstance(caught.value, TransientStorageError)


def test_what_cannot_be_written_is_not_a_file_that_is_missing() -> None:
    with pytest.raises(StorageError, match=r"^cannot write /proc/none/x"):
        Storage.from_uri("/proc/none").write_bytes("x", b"1")


def test_a_folder_lists_its_own_files_and_folders_by_name(store: Storage) -> None:
    for name in ["a/1.bin", "a/2.txt", "a/b/3.bin", "4.bin"]:
        store.write_bytes(name, b"x")
    assert store.list_names("a") == ["1.bin", "2.txt"] and store.list_names("a", ".txt") == ["2.txt"]
    assert store.list_folders("a") == ["b"] and store.list_folders() == ["a"]
    assert store.list_names("absent") == [] and store.list_folders("absent") == []
    assert store.get_subfolder("a").list_paths() == ["1.bin", "2.txt", "b/3.bin"]


def test_a_file_written_in_pieces_appears_when_it_is_complete(store: Storage) -> None:
    with store.open_output("x.bin") as file:
        for _ in range(3):
            file.write(b"piece")
        assert not store.exists("x.bin")
    assert store.read_bytes("x.bin") == b"piece" * 3
    with pytest.raises(ValueError, match="broke"), store.open_output("y.bin") as file:
        file.write(b"half")
        raise ValueError("broke")
    assert store.list_paths() == ["x.bin"]


def test_a_local_folder_is_renamed_at_once(tmp_path: Path) -> None:
    place = Storage.from_uri(tmp_path)
    place.write_bytes("a.partial/x", b"1")
    place.rename_folder("a.partial", "a")
    assert place.list_paths() == ["a/x"]
    with pytest.raises(StorageError, match="no such file"):
        place.rename_folder("absent", "b")
    with pytest.raises(ValueError, match="cannot rename"):
        Storage.from_uri("s3://bucket/x").rename_folder("a", "b")


def test_the_file_system_of_a_store_travels_to_other_processes(s3: S3) -> None:
    place = Storage.from_uri(s3.uri)
    place.write_bytes("a/x", b"1")
    filesystem = pickle.loads(pickle.dumps(place.get_filesystem()))
    with filesystem.open_input_file(place.get_arrow_path("a/x")) as file:
        assert file.read() == b"1"
