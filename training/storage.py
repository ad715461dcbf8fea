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


class FileInfo(NamedTuple):
    path: str  # relative to the folder that was asked
    size: int  # bytes
    modified_ns: int  # modification time, ns since 1970


@dataclass(frozen=True)
class Folder:
    """A place by its address. Holds nothing else, so it travels to other processes.

    Every method raises RepriseError, in one line, where the place refuses, is missing or cannot be reached.
    """

    uri: str

    @classmethod
    def from_uri(cls, uri: str | Path) -> Folder:
        text = os.fspath(uri).removeprefix("file://")
        if text.startswith("s3://"):
            if not text[5:].split("/")[0]:
                raise RepriseError(f"{text}: name a bucket, as in s3://bucket/prefix")
            return cls(text.rstrip("/"))
        if "://" in text:
            raise RepriseError(f"{text}: only local paths and s3://bucket/prefix are supported")
        return cls(str(Path(text).absolute()))  # absolute: a worker has another working directory

    @property
    def is_remote(self) -> bool:
        return self.uri.startswith("s3://")

    def get_local_path(self, rel: str = "") -> Path:
        """The path of a file on this machine's disk.

        Raises:
            ValueError: it is on S3.
        """
        if self.is_remote:
            raise ValueError(f"{self.uri} is not on this machine")
        return Path(self.join_path(rel))

    def join_path(self, rel: str) -> str:
        return f"{self.uri}/{rel}" if rel else self.uri

    def exists(self, rel: str = "") -> bool:
        try:
            found = self.get_filesystem().get_file_info(self._get_path(rel))
        except OSError as error:
            raise self._explain_error(rel, error) from error
        return bool(found.type != pafs.FileType.NotFound)

    def list_files(self, rel: str = "") -> list[str]:
        """Names of the files in a folder, sorted; an absent folder has none."""
        selector = pafs.FileSelector(self._get_path(rel), allow_not_found=True)
        try:
            found = self.get_filesystem().get_file_info(selector)
        except OSError as error:
            raise self._explain_error(rel, error) from error
        return sorted(info.base_name for info in found if info.type == pafs.FileType.File)

    def walk_files(self) -> Iterator[FileInfo]:
        """Every file below, in no order."""
        top = self._get_path("")
        try:
            found = self.get_filesystem().get_file_info(pafs.FileSelector(top, recursive=True))
        except OSError as error:
            raise self._explain_error("", error) from error
        for info in found:
            if info.type == pafs.FileType.File:
                yield FileInfo(info.path.removeprefix(top).lstrip("/"), info.size, info.mtime_ns)

    def get_file_info(self, rel: str) -> FileInfo | None:
        """A file's size and stamp; None: there is no such file."""
        try:
            info = self.get_filesystem().get_file_info(self._get_path(rel))
        except OSError as error:
            raise self._explain_error(rel, error) from error
        return FileInfo(rel, info.size, info.mtime_ns) if info.type == pafs.FileType.File else None

    def list_folders(self, rel: str = "") -> list[str]:
        """Names of the folders in a folder, sorted; an absent folder has none."""
        selector = pafs.FileSelector(self._get_path(rel), allow_not_found=True)
        try:
            found = self.get_filesystem().get_file_info(selector)
        except OSError as error:
            raise self._explain_error(rel, error) from error
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)

    def open_file(self, rel: str) -> pa.NativeFile:
        """For reading anywhere in it; `read_at` may be called from several threads."""
        try:
            return self.get_filesystem().open_input_file(self._get_path(rel))
        except OSError as error:
            raise self._explain_error(rel, error) from error

    def create_file(self, rel: str) -> pa.NativeFile:
        """To write a large object piece by piece; close it. On a disk use `write`: this shows half files."""
        try:
            return self.get_filesystem().open_output_stream(self._get_path(rel))
        except OSError as error:
            raise self._explain_error(rel, error) from error

    def read_bytes(self, rel: str) -> bytes:
        with self.open_file(rel) as file:
            return bytes(file.readall())

    def write_bytes(self, rel: str, data: bytes) -> None:
        try:
            if self.is_remote:
                # One request for a small file; a larger one shows once its last part is confirmed.
                with self.get_filesystem().open_output_stream(self._get_path(rel)) as file:
                    file.write(data)
                return
            target = Path(self._get_path(rel))
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
            raise self._explain_error(rel, error) from error

    def delete_file(self, rel: str) -> None:
        """Remove a file; a missing one is fine."""
        try:
            if self.exists(rel):
                self.get_filesystem().delete_file(self._get_path(rel))
        except OSError as error:
            raise self._explain_error(rel, error) from error

    def delete_folder(self, rel: str) -> None:
        """Remove a folder and all that is in it; a missing one is fine."""
        try:
            if self.exists(rel):
                self.get_filesystem().delete_dir(self._get_path(rel))
        except OSError as error:
            raise self._explain_error(rel, error) from error

    def rename_folder(self, rel: str, new: str) -> None:
        """Move a folder that is on a disk, at once."""
        if self.is_remote:
            raise ValueError("objects cannot be renamed at once")
        try:
            Path(self._get_path(rel)).rename(self._get_path(new))
        except OSError as error:
            raise self._explain_error(rel, error) from error

    def _get_path(self, rel: str) -> str:
        return self.join_path(rel).removeprefix("s3://")

    def get_filesystem(self) -> pafs.FileSystem:
        """Its paths are addresses without `s3://`."""
        if not self.is_remote:
            return pafs.LocalFileSystem()
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return _connect_s3(self.uri[5:].split("/")[0], endpoint, region)

    def _explain_error(self, rel: str, error: OSError) -> RepriseError:
        where = self.join_path(rel)
        if isinstance(error, FileNotFoundError):
            return RepriseError(f"no such file: {where}")
        if isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error):
            return RepriseError(f"permission denied: {where}")
        return RepriseError(f"{where}: {' '.join(str(error.strerror or error).split())}")


@functools.lru_cache(maxsize=32)
def _connect_s3(bucket: str, endpoint: str | None, region: str | None) -> pafs.S3FileSystem:
    scheme, _, host = endpoint.partition("://") if endpoint else ("https", "", "")
    if not region:
        # Only Amazon's own endpoints care which region it is.
        region = "us-east-1" if endpoint else pafs.resolve_s3_region(bucket)
    return pafs.S3FileSystem(endpoint_override=host.rstrip("/") or None, scheme=scheme, region=region)
