"""Files below a folder or an `s3://bucket/prefix`, by relative paths.

What is written appears whole or not at all.
`AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` points at another store than Amazon's; credentials come by the
usual AWS chain.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs

from reprise.errors import RepriseError


class File(NamedTuple):
    path: str  # relative to the folder that was asked
    size: int  # bytes
    stamp: int  # modification time, ns since 1970


@dataclass(frozen=True)
class Folder:
    """A place by its address. Holds nothing else, so it travels to other processes.

    Every method raises RepriseError, in one line, where the place refuses, is missing or cannot be reached.
    """

    uri: str

    @classmethod
    def at(cls, uri: str | Path) -> Folder:
        text = os.fspath(uri).removeprefix("file://")
        if text.startswith("s3://"):
            if not text[5:].split("/")[0]:
                raise RepriseError(f"{text}: name a bucket, as in s3://bucket/prefix")
            return cls(text.rstrip("/"))
        if "://" in text:
            raise RepriseError(f"{text}: only local paths and s3://bucket/prefix are supported")
        return cls(str(Path(text).absolute()))  # absolute: a worker has another working directory

    @property
    def remote(self) -> bool:
        return self.uri.startswith("s3://")

    def local(self, rel: str = "") -> Path:
        """The path of a file on this machine's disk.

        Raises:
            ValueError: it is on S3.
        """
        if self.remote:
            raise ValueError(f"{self.uri} is not on this machine")
        return Path(self.join(rel))

    def join(self, rel: str) -> str:
        return f"{self.uri}/{rel}" if rel else self.uri

    def exists(self, rel: str = "") -> bool:
        try:
            found = self.filesystem().get_file_info(self._path(rel))
        except OSError as error:
            raise self._explained(rel, error) from error
        return bool(found.type != pafs.FileType.NotFound)

    def names(self, rel: str = "") -> list[str]:
        """Names of the files in a folder, sorted; an absent folder has none."""
        selector = pafs.FileSelector(self._path(rel), allow_not_found=True)
        try:
            found = self.filesystem().get_file_info(selector)
        except OSError as error:
            raise self._explained(rel, error) from error
        return sorted(info.base_name for info in found if info.type == pafs.FileType.File)

    def walk(self) -> Iterator[File]:
        """Every file below, in no order."""
        top = self._path("")
        try:
            found = self.filesystem().get_file_info(pafs.FileSelector(top, recursive=True))
        except OSError as error:
            raise self._explained("", error) from error
        for info in found:
            if info.type == pafs.FileType.File:
                yield File(info.path.removeprefix(top).lstrip("/"), info.size, info.mtime_ns)

    def stat(self, rel: str) -> File | None:
        """A file's size and stamp; None: there is no such file."""
        try:
            info = self.filesystem().get_file_info(self._path(rel))
        except OSError as error:
            raise self._explained(rel, error) from error
        return File(rel, info.size, info.mtime_ns) if info.type == pafs.FileType.File else None

    def folders(self, rel: str = "") -> list[str]:
        """Names of the folders in a folder, sorted; an absent folder has none."""
        selector = pafs.FileSelector(self._path(rel), allow_not_found=True)
        try:
            found = self.filesystem().get_file_info(selector)
        except OSError as error:
            raise self._explained(rel, error) from error
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)

    def open(self, rel: str) -> pa.NativeFile:
        """For reading anywhere in it; `read_at` may be called from several threads."""
        try:
            return self.filesystem().open_input_file(self._path(rel))
        except OSError as error:
            raise self._explained(rel, error) from error

    def create(self, rel: str) -> pa.NativeFile:
        """To write a large object piece by piece; close it. On a disk use `write`: this shows half files."""
        try:
            return self.filesystem().open_output_stream(self._path(rel))
        except OSError as error:
            raise self._explained(rel, error) from error

    def read(self, rel: str) -> bytes:
        with self.open(rel) as file:
            return bytes(file.readall())

    def write(self, rel: str, data: bytes) -> None:
        try:
            if self.remote:
                # One request for a small file; a larger one shows once its last part is confirmed.
                with self.filesystem().open_output_stream(self._path(rel)) as file:
                    file.write(data)
                return
            target = Path(self._path(rel))
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".partial-{secrets.token_hex(4)}")
            try:
                with partial.open("wb") as local:
                    local.write(data)
                    local.flush()
                    os.fsync(local.fileno())
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise self._explained(rel, error) from error

    def delete(self, rel: str) -> None:
        """Remove a file; a missing one is fine."""
        try:
            if self.exists(rel):
                self.filesystem().delete_file(self._path(rel))
        except OSError as error:
            raise self._explained(rel, error) from error

    def delete_folder(self, rel: str) -> None:
        """Remove a folder and all that is in it; a missing one is fine."""
        try:
            if self.exists(rel):
                self.filesystem().delete_dir(self._path(rel))
        except OSError as error:
            raise self._explained(rel, error) from error

    def rename(self, rel: str, new: str) -> None:
        """Move a folder that is on a disk, at once."""
        if self.remote:
            raise ValueError("objects cannot be renamed at once")
        try:
            Path(self._path(rel)).rename(self._path(new))
        except OSError as error:
            raise self._explained(rel, error) from error

    def _path(self, rel: str) -> str:
        return self.join(rel).removeprefix("s3://")

    def filesystem(self) -> pafs.FileSystem:
        """Its paths are addresses without `s3://`."""
        if not self.remote:
            return pafs.LocalFileSystem()
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return _s3(self.uri[5:].split("/")[0], endpoint, region)

    def _explained(self, rel: str, error: OSError) -> RepriseError:
        where = self.join(rel)
        if isinstance(error, FileNotFoundError):
            return RepriseError(f"no such file: {where}")
        if isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error):
            return RepriseError(f"permission denied: {where}")
        return RepriseError(f"{where}: {' '.join(str(error.strerror or error).split())}")


@functools.lru_cache(maxsize=32)
def _s3(bucket: str, endpoint: str | None, region: str | None) -> pafs.S3FileSystem:
    scheme, _, host = endpoint.partition("://") if endpoint else ("https", "", "")
    if not region:
        # Only Amazon's own endpoints care which region it is.
        region = "us-east-1" if endpoint else pafs.resolve_s3_region(bucket)
    return pafs.S3FileSystem(endpoint_override=host.rstrip("/") or None, scheme=scheme, region=region)
