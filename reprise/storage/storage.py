"""`Storage`: the files below a folder or an S3 prefix, with the same methods and promises for both."""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from reprise.digest import FileHasher, HashingWriter
from reprise.errors import StorageError
from reprise.storage.address import is_remote, join_uri, normalize_uri, split_parent, split_uri
from reprise.storage.explain import explain_error, explain_errors, join_lines
from reprise.storage.file_info import FileInfo
from reprise.storage.local import (
    PARTIAL_PREFIX,
    make_temporary_file,
    replace_file,
    stat_local_file,
    walk_files,
)
from reprise.storage.s3 import connect_s3

LOCK_PREFIX = ".reprise-lock"  # of the files of `reprise.lock`, which no listing shows
_COPY_BYTES = 8 << 20
_IN_FLIGHT_BYTES = 64 << 20  # sent to S3 but not yet confirmed


@dataclass(frozen=True)
class Storage:
    """The files below one folder or one S3 prefix, named by relative paths with forward slashes.

    A Storage holds only the URI, so it can be sent to other processes. Connections are opened on first use.

    Every method raises StorageError with one line where the place does not exist, refuses, cannot be reached
    or is full; TransientStorageError where a retry may help.
    """

    uri: str  # absolute local path without a trailing slash, or s3:// URI with its options

    @classmethod
    def from_uri(cls, uri: str | Path) -> Storage:
        """A place by its address. Nothing is opened or created yet.

        Raises:
            InputError: neither a local path nor an s3:// address, or an address with credentials in it.
        """
        return cls(normalize_uri(uri))

    @property
    def is_remote(self) -> bool:
        """Whether the place is on S3."""
        return is_remote(self.uri)

    def join_path(self, rel: str) -> str:
        """The full address of a file below this place.

        Raises:
            StorageError: `rel` is absolute or leads out of this place.
        """
        if rel in ("", "."):
            return self.uri
        parts = rel.rstrip("/").split("/")
        if rel.startswith("/") or any(part in ("..", ".", "") for part in parts):
            raise StorageError(f"{rel!r} is not a path below {self.uri}")
        if not self.is_remote:
            return str(Path(self.uri, rel))
        path, options = split_uri(self.uri)
        return join_uri(posixpath.join(path, rel.rstrip("/")), options)

    def get_subfolder(self, rel: str) -> Storage:
        """A folder below this place, as a place of its own."""
        return Storage(self.join_path(rel))

    def get_local_path(self, rel: str = "") -> Path | None:
        """The path of a file on this machine's disk, or None on S3."""
        return None if self.is_remote else Path(self.join_path(rel))

    def exists(self, rel: str = "") -> bool:
        """Whether there is a file or a non-empty folder of that name."""
        return bool(self._get_arrow_info(rel).type != pafs.FileType.NotFound)

    def is_file(self, rel: str = "") -> bool:
        """Whether there is a file of that name."""
        return bool(self._get_arrow_info(rel).type == pafs.FileType.File)

    def get_size(self, rel: str) -> int:
        """Bytes of a file.

        Raises:
            StorageError: there is no such file.
        """
        found = self.stat_file(rel)
        if found.size < 0:
            raise StorageError(f"no such file: {self.join_path(rel)}")
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
        """Files below a folder, with sizes and stamps, sorted by path, without temporary files.

        Symbolic links are followed, each folder once. On S3 this takes one request per thousand files.

        Args:
            prefix: a folder, not the beginning of a name.
            depth: 1: the folder's own files; None: all files below.

        Returns:
            Paths relative to this place, not to `prefix`.
        """
        if not self.is_remote:
            root = Path(self.uri)
            found = walk_files(Path(self.join_path(prefix)), depth)
            top = str(Path(self.join_path(prefix)).relative_to(root))
            listed = [e if top == "." else e._replace(path=f"{top}/{e.path}") for e in found]
        else:
            path, _ = split_uri(self.uri)
            selector = pafs.FileSelector(
                split_uri(self.join_path(prefix))[0], recursive=depth != 1, allow_not_found=True
            )
            with self._explain_errors(prefix):
                infos = self.get_filesystem().get_file_info(selector)
            listed = [
                FileInfo(info.path.removeprefix(path + "/"), int(info.size), int(info.mtime_ns or 0))
                for info in infos
                if info.type == pafs.FileType.File
            ]
            if depth is not None:
                slashes = depth + (prefix.rstrip("/").count("/") + 1 if prefix not in ("", ".") else 0)
                listed = [entry for entry in listed if entry.path.count("/") < slashes]
        hidden = (PARTIAL_PREFIX, LOCK_PREFIX)
        return sorted(e for e in listed if not posixpath.basename(e.path).startswith(hidden))

    def list_paths(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Relative paths of the files below a folder that end in `suffix`, sorted; [] if it is absent."""
        return [path for path in self._list_readable(prefix) if path.endswith(suffix)]

    def list_names(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Names of the files in a folder itself that end in `suffix`, sorted; [] if it is absent."""
        paths = self._list_readable(prefix, depth=1)
        return sorted(name for path in paths if (name := posixpath.basename(path)).endswith(suffix))

    def list_folders(self, prefix: str = "") -> list[str]:
        """Names of the folders in a folder, sorted; [] if it is absent."""
        selector = pafs.FileSelector(self.get_arrow_path(prefix), allow_not_found=True)
        with self._explain_errors(prefix):
            found = self.get_filesystem().get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)

    def _list_readable(self, prefix: str, depth: int | None = None) -> list[str]:
        paths = []
        for entry in self.list_files(prefix, depth):
            if entry.size >= 0:
                paths.append(entry.path)
            elif (entry.problem or "").startswith("cannot be read"):
                # A folder that cannot be listed is not an empty one.
                raise StorageError(f"{self.join_path(entry.path)} {entry.problem}")
        return paths

    def get_etag(self, rel: str = "") -> str | None:
        """The tag that S3 gives to an object's content, or None on a local disk. Takes one request."""
        if not self.is_remote:
            return None
        with self.open_input(rel) as file, self._explain_errors(rel):
            tag = (file.metadata() or {}).get("ETag")
        return tag.decode().strip('"') if tag else None

    def read_bytes(self, rel: str) -> bytes:
        """The whole of a file.

        Raises:
            StorageError: there is no such file.
        """
        with self.open_input(rel) as file, self._explain_errors(rel):
            return bytes(file.read())

    def open_input(self, rel: str) -> pa.NativeFile:
        """A file opened for random access, e.g. for `pq.ParquetFile`; the caller closes it.

        Raises:
            StorageError: there is no such file.
        """
        with self._explain_errors(rel):
            return self.get_filesystem().open_input_file(self.get_arrow_path(rel))

    def read_table(self, rel: str, columns: Iterable[str] | None = None) -> pa.Table:
        """A Parquet file, or some of its columns.

        Raises:
            StorageError: there is no such file, it is damaged or not Parquet, or it lacks a column.
        """
        wanted = None if columns is None else [*columns]
        with self.open_input(rel) as file, self._explain_errors(rel):
            try:
                parquet = pq.ParquetFile(file, pre_buffer=self.is_remote)
                missing = set(wanted or ()) - set(parquet.schema_arrow.names)
                if missing:
                    raise StorageError(f"{self.join_path(rel)} has no column {', '.join(sorted(missing))}")
                return parquet.read(wanted)
            except pa.ArrowInvalid as error:
                raise StorageError(
                    f"{self.join_path(rel)} is damaged or not Parquet: {join_lines(error)}"
                ) from error

    def write_bytes(self, rel: str, data: bytes) -> None:
        """Write or replace a file. Readers see the old content or the new content."""
        if not self.is_remote:
            with replace_file(Path(self.join_path(rel))) as file:
                file.write(data)
            return
        with (
            self._explain_errors(rel),
            self.get_filesystem().open_output_stream(self.get_arrow_path(rel)) as stream,
        ):
            stream.write(data)

    @contextlib.contextmanager
    def open_output(self, rel: str) -> Iterator[BinaryIO | pa.NativeFile]:
        """Open a file to write it piece by piece, in bounded memory. It appears when the body has ended.

        If the body raises, a local file keeps its old content. On S3 the object is removed, because Arrow
        publishes what was sent.
        """
        if not self.is_remote:
            # A second handle, because torch closes the file that it is given.
            with (
                replace_file(Path(self.join_path(rel))) as file,
                os.fdopen(os.dup(file.fileno()), "wb") as stream,
            ):
                yield stream
            return
        try:
            with (
                self._explain_errors(rel),
                self.get_filesystem().open_output_stream(self.get_arrow_path(rel)) as stream,
            ):
                yield stream
        except BaseException:
            with contextlib.suppress(StorageError):
                self.delete_file(rel)
            raise

    def put_file(self, local: Path, rel: str) -> None:
        """Copy a file of this machine to `rel` in bounded memory. The copy appears whole or not at all.

        Raises:
            StorageError: `local` is missing or unreadable, or `rel` cannot be written.
        """
        try:
            source = local.open("rb")
        except OSError as error:
            raise StorageError(f"cannot read {local}: {error.strerror}") from error
        with source:
            if not self.is_remote:
                with replace_file(Path(self.join_path(rel))) as file:
                    shutil.copyfileobj(source, file, _COPY_BYTES)
                return
            wanted = os.fstat(source.fileno()).st_size
            sent = 0
            broken: OSError | None = None
            with (
                self._explain_errors(rel),
                self.get_filesystem().open_output_stream(self.get_arrow_path(rel)) as stream,
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
                        stream.flush()  # waits, so that a slow network does not fill the memory with a shard
            if sent != wanted:
                # Arrow publishes what was sent when a stream closes. It cannot abort an upload.
                self.delete_file(rel)
                raise StorageError(f"{local} could not be read to its end") from broken

    def write_parquet(
        self,
        rel: str,
        batches: Iterable[pa.Table],
        schema: pa.Schema,
        *,
        row_group_rows: int | None = None,
        compression: str = "zstd",
        hasher: FileHasher | None = None,
    ) -> int:
        """Write tables to a Parquet file one after another, one row group each; return the number of rows.

        For S3 the file is first written to this machine's temporary folder, because Arrow would publish half
        a file if `batches` failed midway.

        Args:
            rel: path of the file below this place.
            batches: tables of the schema.
            schema: columns of the file.
            row_group_rows: a table with more rows gives several groups; default: no limit.
            compression: codec of the pages.
            hasher: gets the bytes of the file, so that nobody has to read it back.
        """
        if self.is_remote:
            with make_temporary_file(self.join_path(rel)) as spooled:
                rows = Storage.from_uri(spooled.parent).write_parquet(
                    spooled.name,
                    batches,
                    schema,
                    row_group_rows=row_group_rows,
                    compression=compression,
                    hasher=hasher,
                )
                self.put_file(spooled, rel)
                return rows
        rows = 0
        with (
            replace_file(Path(self.join_path(rel))) as file,
            pq.ParquetWriter(
                HashingWriter(file, hasher) if hasher else file, schema, compression=compression
            ) as writer,
        ):
            for table in batches:
                writer.write_table(table, row_group_size=row_group_rows or max(1, table.num_rows))
                rows += int(table.num_rows)
        return rows

    def delete_file(self, rel: str) -> None:
        """Remove a file. A missing file is no error."""
        with self._explain_errors(rel), contextlib.suppress(FileNotFoundError):
            self.get_filesystem().delete_file(self.get_arrow_path(rel))

    def delete_tree(self, prefix: str) -> None:
        """Remove a folder and all files below it. A missing folder is no error.

        Raises:
            StorageError: `prefix` is empty. A whole dataset must not be removed by accident.
        """
        if self.join_path(prefix) == self.uri:
            raise StorageError(f"refusing to delete all of {self.uri}")
        with self._explain_errors(prefix), contextlib.suppress(FileNotFoundError):
            self.get_filesystem().delete_dir(self.get_arrow_path(prefix))

    def move_file(self, rel: str, new: str) -> None:
        """Move a file within this place: at once on a disk, as a copy within the store on S3.

        A file that has the name `new` is replaced.

        Raises:
            StorageError: there is no such file.
        """
        target = self.get_local_path(new)
        if target is not None:
            with explain_errors(str(target)):
                target.parent.mkdir(parents=True, exist_ok=True)
        with self._explain_errors(rel):
            self.get_filesystem().move(self.get_arrow_path(rel), self.get_arrow_path(new))

    def rename_folder(self, rel: str, new: str) -> None:
        """Move a folder on a local disk, at once.

        Raises:
            ValueError: this place is on S3, where objects cannot be renamed at once.
        """
        if self.is_remote:
            raise ValueError(f"cannot rename at once on S3: {self.join_path(rel)}")
        with self._explain_errors(rel):
            Path(self.join_path(rel)).rename(self.join_path(new))

    def get_arrow_path(self, rel: str = "") -> str:
        """The path of a file or a folder in `get_filesystem()`."""
        address = self.join_path(rel)
        return split_uri(address)[0] if self.is_remote else address

    def get_filesystem(self) -> pafs.FileSystem:
        """The Arrow file system of this place, for libraries that take one."""
        return connect_s3(self.uri) if self.is_remote else pafs.LocalFileSystem()

    def _get_arrow_info(self, rel: str) -> pafs.FileInfo:
        with self._explain_errors(rel):
            return self.get_filesystem().get_file_info(self.get_arrow_path(rel))

    def _explain_errors(self, rel: str) -> contextlib.AbstractContextManager[None]:
        return explain_errors(self.join_path(rel))


def locate_file(uri: str | Path) -> tuple[Storage, str]:
    """The place that a file is in, and its name there.

    Raises:
        InputError: neither a local path nor an s3:// address.
    """
    folder, name = split_parent(normalize_uri(uri))
    return Storage.from_uri(folder), name


@contextlib.contextmanager
def fetch_file(uri: str) -> Iterator[Path]:
    """A file as a local path: the file itself if it is local, else a download that is removed at the end.

    Raises:
        StorageError: missing, refused, unreachable, or no room for the download.
    """
    if not is_remote(uri):
        path = Path(Storage.from_uri(uri).uri)
        if not path.exists():
            raise StorageError(f"no such file: {path}")
        yield path
        return
    place = Storage.from_uri(uri)
    with make_temporary_file(uri) as path:
        with place.open_input("") as remote:
            try:
                with path.open("wb") as file:
                    while chunk := _read_chunk(place, remote):
                        file.write(chunk)
            except OSError as error:
                raise explain_error(error, str(path)) from error
        yield path


def _read_chunk(place: Storage, file: pa.NativeFile) -> bytes:
    """The next chunk of a remote file. An OSError here is of the store, not of the local disk."""
    with explain_errors(place.uri):
        return bytes(file.read(_COPY_BYTES))
