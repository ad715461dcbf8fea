"""Connections to S3-compatible stores, one a bucket and process."""

from __future__ import annotations

import functools
import os
import urllib.parse
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from reprise.errors import StorageError
from reprise.storage.address import mask_credentials, split_uri
from reprise.storage.explain import explain_error

# Seconds. The probe that opens a bucket gives up early, so that a wrong address is known at once. Requests of
# work under way wait longer, because a busy store answers slowly.
_PROBE_CONNECT_TIMEOUT, _PROBE_REQUEST_TIMEOUT = 3, 6
_WORK_CONNECT_TIMEOUT, _WORK_REQUEST_TIMEOUT, _WORK_ATTEMPTS = 5, 30, 5


def connect_s3(uri: str) -> pafs.S3FileSystem:
    """The file system that an s3:// address is on. Its paths are addresses without `s3://` and options.

    Raises:
        StorageError: the bucket does not exist, refuses or cannot be reached.
    """
    path, options = split_uri(uri)
    return _open_bucket(path.split("/")[0], *_resolve_options(options))


def connect_boto(uri: str) -> Any:
    """A boto3 client of the store that an s3:// address is on: Arrow has no conditional requests."""
    import boto3  # takes a while
    from botocore import UNSIGNED
    from botocore.config import Config

    path, options = split_uri(uri)
    scheme, endpoint, region, anonymous = _resolve_options(options)
    return boto3.client(
        "s3",
        endpoint_url=f"{scheme}://{endpoint}" if endpoint else None,
        region_name=region or ("us-east-1" if endpoint else pafs.resolve_s3_region(path.split("/")[0])),
        config=Config(
            connect_timeout=_WORK_CONNECT_TIMEOUT,
            read_timeout=_WORK_REQUEST_TIMEOUT,
            retries={"mode": "standard", "total_max_attempts": _WORK_ATTEMPTS * 2},
            signature_version=UNSIGNED if anonymous else None,
        ),
    )


def _resolve_options(options: str) -> tuple[str, str | None, str | None, bool]:
    """Scheme, endpoint without scheme, region, and whether requests are anonymous."""
    given = {key: values[-1] for key, values in urllib.parse.parse_qs(options).items()}
    endpoint = (
        given.get("endpoint_override")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    scheme = given.get("scheme", "https")
    if endpoint and "://" in endpoint:
        scheme, endpoint = endpoint.split("://", 1)
    region = given.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    anonymous = given.get("anonymous", "").lower() in ("1", "true", "yes")
    return scheme, endpoint.rstrip("/") if endpoint else None, region, anonymous


@functools.lru_cache(maxsize=32)
def _open_bucket(
    bucket: str, scheme: str, endpoint: str | None, region: str | None, anonymous: bool
) -> pafs.S3FileSystem:
    """A connection to one bucket's store, after one request that checks that the bucket exists."""
    address = mask_credentials(f"{scheme}://{endpoint}") if endpoint else ""
    where = f"bucket {bucket}" + (f" at {address}" if address else "")
    try:
        if not region:
            # Only Amazon's own endpoints need the right region.
            region = "us-east-1" if endpoint else pafs.resolve_s3_region(bucket)
        settings = {
            "endpoint_override": endpoint,
            "scheme": scheme,
            "region": region,
            "anonymous": anonymous,
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
            raise explain_error(error, where) from error
        found = True  # a policy may allow to read objects of a bucket and not to look at the bucket
    if not found:
        raise StorageError(f"no such {where}")
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
