"""Where bytes live: a folder, or a prefix of any S3-compatible store, behind one small class.

A place is a local path, a `file://` URI or `s3://bucket/prefix`. After the prefix, `?` and any of
`endpoint_override`, `scheme`, `region` and `anonymous` point at another store than the environment's;
without them `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` decides. Credentials come by the usual AWS chain.
Keys are taken literally: nothing in a path is percent-decoded.

Whatever is written appears whole or not at all. A writer that is killed leaves at most a temporary file,
which no reader lists and which the next writer of the same name removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import posixpath
import re
import secrets
import shutil
import stat
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from reprise.digest import compute_digest
from reprise.errors import RepriseError

_PARTIAL_PREFIX = ".partial-"
_COPY_BYTES = 8 << 20
_IN_FLIGHT_BYTES = 64 << 20  # sent to S3 but not yet confirmed
_S3_OPTIONS = re.compile(r"\?((?:endpoint_override|scheme|region|anonymous)=.*)$")

# Seconds. The probe that opens a bucket gives up early, so that a wrong address is known at once; work under
# way waits longer, because a busy store answers slowly.
_PROBE_CONNECT_TIMEOUT, _PROBE_REQUEST_TIMEOUT = 3, 6
_WORK_CONNECT_TIMEOUT, _WORK_REQUEST_TIMEOUT, _WORK_ATTEMPTS = 5, 30, 5


class FileInfo(NamedTuple):
    """A file as a listing shows it."""

    path: str  # relative to the place that was listed
    size: int  # bytes; -1 where it could not be read
    stamp: int  # modification time, ns since 1970
    problem: str | None = None  # why it cannot be read, where the listing already shows it


@dataclass(frozen=True)
class Storage:
    """The files below one folder or one S3 prefix, named by relative paths with forward slashes.

    Holds nothing but the URI, so it travels to other processes; connections are opened on first use there.

    Every method raises RepriseError, in one line, where the place does not exist, refuses, cannot be reached
    or is full.
    """

    uri: str  # absolute local path without a trailing slash, or s3:// URI with its options

    @classmethod
    def from_uri(cls, uri: str | Path) -> Storage:
        """A place by its address; nothing is opened or created yet.

        Raises:
            RepriseError: neither a local path nor an s3:// address.
        """
        text = os.fspath(uri)
        if text.startswith("file://"):
            text = urllib.parse.unquote(urllib.parse.urlsplit(text).path)
        if not is_remote(text):
            if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
                raise RepriseError(f"{text}: only local paths and s3://bucket/prefix are supported")
            # Absolute, because a worker process has another working directory.
            return cls(str(Path(text).absolute()))
        path, options = _split_uri(text)
        if not path.split("/")[0]:
            raise RepriseError(f"{text}: name a bucket, as in s3://bucket/prefix")
        return cls(_join_uri(path.rstrip("/"), options))

    @property
    def is_remote(self) -> bool:
        return is_remote(self.uri)

    def join_path(self, rel: str) -> str:
        """The full address of a file below this place.

        Raises:
            RepriseError: `rel` is absolute or leads out of this place.
        """
        if rel in ("", "."):
            return self.uri
        parts = rel.rstrip("/").split("/")
        if rel.startswith("/") or any(part in ("..", ".", "") for part in parts):
            raise RepriseError(f"{rel!r} is not a path below {self.uri}")
        if not self.is_remote:
            return str(Path(self.uri, rel))
        path, options = _split_uri(self.uri)
        return _join_uri(posixpath.join(path, rel.rstrip("/")), options)

    def get_local_path(self, rel: str = "") -> Path | None:
        """The path of a file on this machine's disk, or None on S3."""
        return None if self.is_remote else Path(self.join_path(rel))

    def exists(self, rel: str = "") -> bool:
        """Is there a file or a non-empty folder of that name?"""
        return bool(self._get_arrow_info(rel).type != pafs.FileType.NotFound)

    def is_file(self, rel: str = "") -> bool:
        return bool(self._get_arrow_info(rel).type == pafs.FileType.File)

    def get_size(self, rel: str) -> int:
        """Bytes of a file.

        Raises:
            RepriseError: there is no such file.
        """
        found = self.stat_file(rel)
        if found.size < 0:
            raise RepriseError(f"no such file: {self.join_path(rel)}")
        return found.size

    def stat_file(self, rel: str = "") -> FileInfo:
        """One file as a listing would show it, with the problem `missing file` where it is absent."""
        if not self.is_remote:
            return stat_local_file(Path(self.join_path(rel)))._replace(path=rel)
        info = self._get_arrow_info(rel)
        if info.type != pafs.FileType.File:
            return FileInfo(rel, -1, 0, "missing file")
        return FileInfo(rel, int(info.size), int(info.mtime_ns or 0))

    def list_files(self, prefix: str = "", depth: int | None = None) -> list[FileInfo]:
        """Files below a folder, with sizes and stamps, sorted by path; temporary files are left out.

        `prefix` is a folder, not the beginning of a name. `depth` 1 means the folder's own files; by default
        everything below. Paths are relative to this place, so they can be read back as they are. Symbolic
        links are followed, each folder once. On S3 this takes one request per thousand files and reads none.
        """
        if not self.is_remote:
            root = Path(self.uri)
            found = walk_files(Path(self.join_path(prefix)), depth)
            top = str(Path(self.join_path(prefix)).relative_to(root))
            listed = [e if top == "." else e._replace(path=f"{top}/{e.path}") for e in found]
        else:
            path, _ = _split_uri(self.uri)
            selector = pafs.FileSelector(
                _split_uri(self.join_path(prefix))[0], recursive=depth != 1, allow_not_found=True
            )
            with self._wrap_errors(prefix):
                infos = self._open_filesystem().get_file_info(selector)
            listed = [
                FileInfo(info.path.removeprefix(path + "/"), int(info.size), int(info.mtime_ns or 0))
                for info in infos
                if info.type == pafs.FileType.File
            ]
            if depth is not None:
                slashes = depth + (prefix.rstrip("/").count("/") + 1 if prefix not in ("", ".") else 0)
                listed = [entry for entry in listed if entry.path.count("/") < slashes]
        return sorted(e for e in listed if not posixpath.basename(e.path).startswith(_PARTIAL_PREFIX))

    def list_paths(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Relative paths of the files below a folder that end in `suffix`, sorted; [] if it is absent."""
        paths = []
        for entry in self.list_files(prefix):
            if entry.size >= 0:
                paths.append(entry.path)
            elif (entry.problem or "").startswith("cannot be read"):
                # A folder that cannot be listed is not an empty one.
                raise RepriseError(f"{self.join_path(entry.path)} {entry.problem}")
        return [path for path in paths if path.endswith(suffix)]

    def get_etag(self, rel: str = "") -> str | None:
        """S3's own tag of an object's content, or None on a local disk; one request."""
        if not self.is_remote:
            return None
        with self.open_input(rel) as file, self._wrap_errors(rel):
            tag = (file.metadata() or {}).get("ETag")
        return tag.decode().strip('"') if tag else None

    def read_bytes(self, rel: str) -> bytes:
        """The whole of a file.

        Raises:
            RepriseError: there is no such file.
        """
        with self.open_input(rel) as file, self._wrap_errors(rel):
            return bytes(file.read())

    def open_input(self, rel: str) -> pa.NativeFile:
        """A file opened for random access, e.g. for `pq.ParquetFile`; the caller closes it.

        Raises:
            RepriseError: there is no such file.
        """
        with self._wrap_errors(rel):
            return self._open_filesystem().open_input_file(self._get_arrow_path(rel))

    def read_table(self, rel: str, columns: Iterable[str] | None = None) -> pa.Table:
        """A Parquet file, or some of its columns.

        Raises:
            RepriseError: there is no such file, it is damaged or not Parquet, or it lacks a column.
        """
        wanted = None if columns is None else [*columns]
        with self.open_input(rel) as file, self._wrap_errors(rel):
            try:
                parquet = pq.ParquetFile(file, pre_buffer=self.is_remote)
                missing = set(wanted or ()) - set(parquet.schema_arrow.names)
                if missing:
                    raise RepriseError(f"{self.join_path(rel)} has no column {', '.join(sorted(missing))}")
                return parquet.read(wanted)
            except pa.ArrowInvalid as error:
                raise RepriseError(
                    f"{self.join_path(rel)} is damaged or not Parquet: {_join_lines(error)}"
                ) from error

    def write_bytes(self, rel: str, data: bytes) -> None:
        """Write a file, replacing any of that name; readers see the old one or the new one."""
        if not self.is_remote:
            with self._replace_file(rel) as file:
                file.write(data)
            return
        with (
            self._wrap_errors(rel),
            self._open_filesystem().open_output_stream(self._get_arrow_path(rel)) as stream,
        ):
            stream.write(data)

    def put_file(self, local: Path, rel: str) -> None:
        """Copy a file of this machine to `rel` in bounded memory; the copy appears whole or not at all.

        Raises:
            RepriseError: `local` is missing or unreadable, or as everywhere.
        """
        try:
            source = local.open("rb")
        except OSError as error:
            raise RepriseError(f"cannot read {local}: {error.strerror}") from error
        with source:
            if not self.is_remote:
                with self._replace_file(rel) as file:
                    shutil.copyfileobj(source, file, _COPY_BYTES)
                return
            wanted = os.fstat(source.fileno()).st_size
            sent = 0
            broken: OSError | None = None
            with (
                self._wrap_errors(rel),
                self._open_filesystem().open_output_stream(self._get_arrow_path(rel)) as stream,
            ):
                while sent < wanted:
                    try:
                        chunk = source.read(_COPY_BYTES)
                    except OSError as error:
                        broken = error
                        break
                    if not chunk:
                        break
                    sent += stream.write(chunk)
                    if sent % _IN_FLIGHT_BYTES < len(chunk):
                        stream.flush()  # waits: a slow network must not pile a whole shard up in memory
            if sent != wanted:
                # Arrow publishes what was sent when a stream closes, and has no way to give an upload up.
                self.delete_file(rel)
                raise RepriseError(f"{local} could not be read to its end") from broken

    def write_parquet(
        self,
        rel: str,
        batches: Iterable[pa.Table],
        schema: pa.Schema,
        *,
        row_group_rows: int | None = None,
        compression: str = "zstd",
    ) -> int:
        """Write tables to a Parquet file as they come, one row group each; returns the number of rows.

        A table longer than `row_group_rows` gives several groups. For S3 the file is first written to this
        machine's temporary folder: Arrow would publish half a file if `batches` failed midway.
        """
        if self.is_remote:
            with _make_temporary_file(self.join_path(rel)) as spooled:
                rows = Storage.from_uri(spooled.parent).write_parquet(
                    spooled.name, batches, schema, row_group_rows=row_group_rows, compression=compression
                )
                self.put_file(spooled, rel)
                return rows
        rows = 0
        with (
            self._replace_file(rel) as file,
            pq.ParquetWriter(file, schema, compression=compression) as writer,
        ):
            for table in batches:
                writer.write_table(table, row_group_size=row_group_rows or max(1, table.num_rows))
                rows += int(table.num_rows)
        return rows

    def delete_file(self, rel: str) -> None:
        """Remove a file; a missing one is fine."""
        with self._wrap_errors(rel), contextlib.suppress(FileNotFoundError):
            self._open_filesystem().delete_file(self._get_arrow_path(rel))

    def delete_tree(self, prefix: str) -> None:
        """Remove a folder and all below it; a missing one is fine.

        Raises:
            RepriseError: `prefix` is empty: a whole dataset is not removed by accident.
        """
        if self.join_path(prefix) == self.uri:
            raise RepriseError(f"refusing to delete all of {self.uri}")
        with self._wrap_errors(prefix), contextlib.suppress(FileNotFoundError):
            self._open_filesystem().delete_dir(self._get_arrow_path(prefix))

    def _get_arrow_path(self, rel: str) -> str:
        address = self.join_path(rel)
        return _split_uri(address)[0] if self.is_remote else address

    def _get_arrow_info(self, rel: str) -> pafs.FileInfo:
        with self._wrap_errors(rel):
            return self._open_filesystem().get_file_info(self._get_arrow_path(rel))

    def _open_filesystem(self) -> pafs.FileSystem:
        if not self.is_remote:
            return pafs.LocalFileSystem()
        path, options = _split_uri(self.uri)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return _open_bucket(path.split("/")[0], options, endpoint, region)

    @contextlib.contextmanager
    def _wrap_errors(self, rel: str) -> Iterator[None]:
        """Turn what the disk or the store said into one line for people."""
        try:
            yield
        except OSError as error:
            raise _explain_error(error, self.join_path(rel)) from error

    @contextlib.contextmanager
    def _replace_file(self, rel: str) -> Iterator[BinaryIO]:
        """A temporary file beside a local target that takes its name on success and goes on failure."""
        target = Path(self.join_path(rel))
        # Hashed, because a long name plus a suffix may exceed what the file system allows.
        stem = f"{_PARTIAL_PREFIX}{compute_digest(target.name)}-"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned_files(target.parent, stem)
            partial, file = _create_locked_file(target.parent, stem)
            try:
                with file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                    # Renamed while still locked: nobody takes it for abandoned in between.
                    partial.replace(target)
                _sync_folder(target.parent)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            # An error that names a file elsewhere comes from whoever makes the content.
            named = Path(str(error.filename or target))
            ours = named.parent == target.parent and named.name.startswith(stem)
            if not ours and named not in (target, *target.parents):
                raise
            raise _explain_error(error, str(target)) from error


@contextlib.contextmanager
def fetch_file(uri: str) -> Iterator[Path]:
    """One source file as a local path: itself when it is local, else a download that goes on leaving.

    Raises:
        RepriseError: missing, refused, unreachable, or no room for the download.
    """
    if not is_remote(uri):
        path = Path(Storage.from_uri(uri).uri)
        if not path.exists():
            raise RepriseError(f"no such file: {path}")
        yield path
        return
    place = Storage.from_uri(uri)
    with _make_temporary_file(uri) as path:
        with place.open_input("") as remote:
            try:
                with path.open("wb") as file:
                    while chunk := _read_chunk(place, remote):
                        file.write(chunk)
            except OSError as error:
                raise _explain_error(error, str(path)) from error
        yield path


def is_remote(uri: str) -> bool:
    return uri.startswith("s3://")


def split_options(uri: str) -> tuple[str, str]:
    """An address without its S3 options, and these, with the `?` that begins them."""
    if not is_remote(uri):
        return uri, ""
    path, options = _split_uri(uri)
    return f"s3://{path}", f"?{options}" if options else ""


def resolve_relative_path(uri: str, path: str) -> str:
    """The address that `path` means when it stands in the file at `uri`: relative to that file's folder."""
    if is_remote(path) or path.startswith("/"):
        return path
    if not is_remote(uri):
        return os.path.normpath(Path(uri).parent / path)
    own, options = _split_uri(uri)
    bucket, _, key = own.partition("/")
    moved = posixpath.normpath(posixpath.join("/", posixpath.dirname(key), path))
    return _join_uri(bucket + moved, options)


def split_parent(uri: str) -> tuple[str, str]:
    """The folder that a file is in, and the file's name there."""
    if not is_remote(uri):
        return str(Path(uri).parent), Path(uri).name
    path, options = _split_uri(uri)
    return _join_uri(posixpath.dirname(path), options), posixpath.basename(path)


def walk_files(root: Path, depth: int | None = None) -> Iterator[FileInfo]:
    """Every file below a local folder, in no order; folders that cannot be listed come as one entry each.

    Symbolic links are followed, but a folder is entered once, so a loop ends. An absent root gives nothing.
    """
    seen: set[tuple[int, int]] = set()

    def walk_folder(folder: Path, inside: str, left: int | None) -> Iterator[FileInfo]:
        try:
            where = folder.stat()
            if (where.st_dev, where.st_ino) in seen:
                return
            seen.add((where.st_dev, where.st_ino))
            with os.scandir(folder) as items:
                listed = sorted(items, key=lambda item: item.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield FileInfo(inside.rstrip("/"), -1, 0, _describe_read_error(error))
            return
        for item in listed:
            path = inside + item.name
            # A link that leads nowhere is no folder: `file_entry` says what is wrong with it.
            if _is_folder(item):
                if left is None or left > 1:
                    yield from walk_folder(folder / item.name, path + "/", None if left is None else left - 1)
            else:
                yield stat_local_file(folder / item.name)._replace(path=path)

    yield from walk_folder(root, "", depth)


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # e.g. a link to itself
        return False


def stat_local_file(path: Path) -> FileInfo:
    """A local file's size and stamp, or what keeps it from being read."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL character
        return FileInfo(str(path), -1, 0, "missing file")
    except OSError as error:
        looped = error.errno == errno.ELOOP  # a link to itself
        return FileInfo(str(path), -1, 0, "missing file" if looped else _describe_read_error(error))
    if not stat.S_ISREG(found.st_mode):
        # Opening a pipe would wait for ever.
        return FileInfo(str(path), -1, 0, "not a regular file")
    problem = None if os.access(path, os.R_OK) else "cannot be read: permission denied"
    return FileInfo(str(path), found.st_size, found.st_mtime_ns, problem)


def _describe_read_error(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def _split_uri(uri: str) -> tuple[str, str]:
    """s3://bucket/key?options -> ("bucket/key", "options"); any other `?` is part of the key."""
    path = uri.removeprefix("s3://")
    found = _S3_OPTIONS.search(path)
    return (path[: found.start()], found[1]) if found else (path, "")


def _join_uri(path: str, options: str) -> str:
    return f"s3://{path}?{options}" if options else f"s3://{path}"


@functools.lru_cache(maxsize=32)
def _open_bucket(bucket: str, options: str, endpoint: str | None, region: str | None) -> pafs.S3FileSystem:
    """A connection to one bucket's store, after one request that shows it to be there."""
    given = {key: values[-1] for key, values in urllib.parse.parse_qs(options).items()}
    endpoint = given.get("endpoint_override") or endpoint
    scheme = given.get("scheme", "https")
    if endpoint and "://" in endpoint:
        scheme, endpoint = endpoint.split("://", 1)
    where = f"bucket {bucket}" + (f" at {scheme}://{endpoint.rstrip('/')}" if endpoint else "")
    region = given.get("region") or region
    try:
        if not region:
            # Only Amazon's own endpoints care which region it is.
            region = "us-east-1" if endpoint else pafs.resolve_s3_region(bucket)
        settings = {
            "endpoint_override": endpoint.rstrip("/") if endpoint else None,
            "scheme": scheme,
            "region": region,
            "anonymous": given.get("anonymous", "").lower() in ("1", "true", "yes"),
        }
        probe = pafs.S3FileSystem(
            **settings,
            connect_timeout=_PROBE_CONNECT_TIMEOUT,
            request_timeout=_PROBE_REQUEST_TIMEOUT,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=2),
        )
        found = probe.get_file_info(bucket).type != pafs.FileType.NotFound
    except OSError as error:
        if "ACCESS_DENIED" not in str(error):
            raise _explain_error(error, where) from error
        found = True  # one may read objects of a bucket without being allowed to look at the bucket
    if not found:
        raise RepriseError(f"no such {where}")
    if int(pa.__version__.split(".")[0]) >= 21:
        settings["allow_delayed_open"] = True  # one request, not three, for a small file
    return pafs.S3FileSystem(
        **settings,
        connect_timeout=_WORK_CONNECT_TIMEOUT,
        request_timeout=_WORK_REQUEST_TIMEOUT,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_WORK_ATTEMPTS),
        # Not off: in the foreground, Arrow publishes a truncated object when one part of an upload fails.
        background_writes=True,
    )


def _explain_error(error: OSError, where: str) -> RepriseError:
    message = str(error)
    found = re.search(r"AWS Error ([A-Z_]+)", message)
    code = found[1] if found else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RepriseError(
            f"no space left on {_find_existing_folder(where)}: free some and run the same command again; "
            "finished work is kept"
        )
    if error.errno == errno.EROFS:
        return RepriseError(f"cannot write {where}: the disk is mounted read-only")
    if error.errno in (errno.EACCES, errno.EPERM):
        return RepriseError(f"permission denied: {where}")
    if error.errno == errno.ENOENT or code in ("RESOURCE_NOT_FOUND", "NO_SUCH_KEY"):
        return RepriseError(f"no such file: {where}")
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return RepriseError(
            f"{where}: {(error.strerror or message).lower()}; a file and a folder share a name"
        )
    if code == "NO_SUCH_BUCKET":
        return RepriseError(f"no such bucket: {where}")
    if re.search(r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|TOKEN", code):
        return RepriseError(f"access denied to {where}: check the AWS credentials and the bucket's policy")
    if code == "NETWORK_CONNECTION":
        detail = message.rsplit("Details: ", 1)[-1]
        return RepriseError(f"cannot reach {where}: {detail}; check the address and AWS_ENDPOINT_URL")
    if "HTTP status 301" in message:
        return RepriseError(f"{where} is in another region: set AWS_REGION or append ?region=NAME")
    return RepriseError(f"{where}: {_join_lines(error)}")


def _find_existing_folder(where: str) -> str:
    """The folder to free space in: the nearest that exists."""
    path = Path(where)
    return where if is_remote(where) else str(next((p for p in path.parents if p.exists()), path))


def _join_lines(error: Exception) -> str:
    return " ".join(str(error).split())


def _read_chunk(place: Storage, file: pa.NativeFile) -> bytes:
    """The next chunk; a failure is the store's and not the disk's."""
    with place._wrap_errors(""):
        return bytes(file.read(_COPY_BYTES))


@contextlib.contextmanager
def _make_temporary_file(uri: str) -> Iterator[Path]:
    """The path of a temporary file with the same ending, in a folder of its own that goes on leaving."""
    name = posixpath.basename(_split_uri(uri)[0])
    try:
        folder = tempfile.TemporaryDirectory(prefix="reprise-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _explain_error(error, f"{tempfile.gettempdir()}/{name}") from error
    with folder as inside:
        yield Path(inside, "file" + posixpath.splitext(name)[1])


def _create_locked_file(folder: Path, stem: str) -> tuple[Path, BinaryIO]:
    """A new file that `_remove_abandoned` leaves alone for as long as it is open."""
    while True:
        path = folder / f"{stem}{secrets.token_hex(4)}"
        file = path.open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            return path, file
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # another writer took it for abandoned before it was locked


def _remove_abandoned_files(folder: Path, stem: str) -> None:
    """Remove temporary files of writers that are gone: a living one holds a lock."""
    for path in folder.glob(f"{stem}*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
