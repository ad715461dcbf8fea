"""Addresses: a local path, a `file://` URI, or `s3://bucket/prefix?options`. Nothing is opened here."""

from __future__ import annotations

import os
import posixpath
import re
import urllib.parse
from pathlib import Path

from reprise.errors import InputError

_S3_OPTIONS = re.compile(r"\?((?:endpoint_override|scheme|region|anonymous)=.*)$")
# The second form is for secrets that hold a slash.
_CREDENTIALS = re.compile(r"://(?:[^/\s]*@|[^/@:\s]+:\S*@)")


def is_remote(uri: str) -> bool:
    """Whether an address is on S3."""
    return uri.startswith("s3://")


def mask_credentials(text: str) -> str:
    """Replace `KEY:SECRET` in addresses of the form scheme://KEY:SECRET@host, for messages."""
    return _CREDENTIALS.sub("://***@", text)


def normalize_uri(uri: str | Path) -> str:
    """An absolute local path without a trailing slash, or an s3:// address with its options.

    Raises:
        InputError: neither a local path nor an s3:// address; or an address with credentials in it, which
            would appear in manifests and logs.
    """
    text = os.fspath(uri)
    if text.startswith("file://"):
        text = urllib.parse.unquote(urllib.parse.urlsplit(text).path)
    if not is_remote(text):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            raise InputError(
                f"{mask_credentials(text)}: only local paths and s3://bucket/prefix are supported"
            )
        # Absolute, because a worker process has another working directory.
        return str(Path(text).absolute())
    path, options = split_uri(text)
    if _CREDENTIALS.match(text, len("s3")) or _CREDENTIALS.search(options):
        raise InputError(
            f"{mask_credentials(text)}: leave the credentials out of the address; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile"
        )
    if not path.split("/")[0]:
        raise InputError(f"{text}: name a bucket, as in s3://bucket/prefix")
    return join_uri(path.rstrip("/"), options)


def split_uri(uri: str) -> tuple[str, str]:
    """s3://bucket/key?options -> ("bucket/key", "options"). Any other `?` is part of the key."""
    path = uri.removeprefix("s3://")
    found = _S3_OPTIONS.search(path)
    return (path[: found.start()], found[1]) if found else (path, "")


def join_uri(path: str, options: str) -> str:
    """The opposite of `split_uri`."""
    return f"s3://{path}?{options}" if options else f"s3://{path}"


def split_options(uri: str) -> tuple[str, str]:
    """An address without its S3 options, and the options with the `?` that begins them."""
    if not is_remote(uri):
        return uri, ""
    path, options = split_uri(uri)
    return f"s3://{path}", f"?{options}" if options else ""


def split_parent(uri: str) -> tuple[str, str]:
    """The folder that a file is in, and the file's name there."""
    if not is_remote(uri):
        return str(Path(uri).parent), Path(uri).name
    path, options = split_uri(uri)
    return join_uri(posixpath.dirname(path), options), posixpath.basename(path)


def resolve_relative_path(uri: str, path: str) -> str:
    """The address that `path` means where it stands in the file at `uri`: relative to that file's folder."""
    if is_remote(path) or path.startswith("/"):
        return path
    if not is_remote(uri):
        return os.path.normpath(Path(uri).parent / path)
    own, options = split_uri(uri)
    bucket, _, key = own.partition("/")
    moved = posixpath.normpath(posixpath.join("/", posixpath.dirname(key), path))
    return join_uri(bucket + moved, options)
