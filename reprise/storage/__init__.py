"""Files below a folder, or below a prefix of any S3-compatible store, behind one class: `Storage`.

A place is a local path, a `file://` URI or `s3://bucket/prefix`. After the prefix, `?` and any of
`endpoint_override`, `scheme`, `region` and `anonymous` point at another store than the environment's;
without them `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` decides. Credentials come by the usual AWS chain.
Keys are literal: nothing in a path is percent-decoded.

A written file appears whole or not at all. A killed writer leaves at most a temporary file. No listing shows
it, and the next writer of the same name removes it.
"""

from reprise.storage.address import (
    is_remote,
    mask_credentials,
    resolve_relative_path,
    split_options,
    split_parent,
)
from reprise.storage.file_info import FileInfo
from reprise.storage.local import stat_local_file, walk_files
from reprise.storage.storage import Storage, fetch_file, locate_file

__all__ = [
    "FileInfo",
    "Storage",
    "fetch_file",
    "is_remote",
    "locate_file",
    "mask_credentials",
    "resolve_relative_path",
    "split_options",
    "split_parent",
    "stat_local_file",
    "walk_files",
]
