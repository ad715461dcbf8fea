"""The lock of a place on S3: a lease, which is an object that is written with conditional requests.

The writer's object is made with `If-None-Match` and renewed with `If-Match`, so that of two writers
one fails. A reader has an object of its own. A writer looks for readers after it has made its object, and a
reader looks for a writer after it has made its own, so at least one of them sees the other.
Ages are differences of the store's own times, so no clock of this machine matters.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import signal
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from reprise.errors import StorageError, TransientStorageError
from reprise.lock.holder import LockHolder
from reprise.storage import Storage
from reprise.storage.address import split_uri
from reprise.storage.s3 import connect_boto
from reprise.storage.storage import LOCK_PREFIX

EXPIRY_S = 180.0  # a lease that was not renewed for so long is free
RENEWAL_S = 30.0
_ATTEMPTS = 5  # at a lease that other processes take and give back meanwhile
_REFUSED_CODES = {"AccessDenied", "403", "Forbidden", "MethodNotAllowed"}


@dataclass(frozen=True)
class _FoundLease:
    """A lease as the store shows it."""

    holder: LockHolder | None
    age: float  # s since it was renewed
    etag: str

    @property
    def is_free(self) -> bool:
        return self.age > EXPIRY_S or (self.holder is not None and self.holder.has_ended())


class _ChangedError(Exception):
    """The object is not what the condition of a request states."""


class S3Lease:
    """A lease of a place on S3."""

    def __init__(self, folder: Storage, *, shared: bool) -> None:
        self._folder, self._shared = folder, shared
        self._client: Any = None
        self._holder = LockHolder.from_process()
        bucket, _, prefix = split_uri(folder.uri)[0].partition("/")
        self._bucket = bucket
        self._writer_key = posixpath.join(prefix, f"{LOCK_PREFIX}.json")
        self._reader_prefix = posixpath.join(prefix, f"{LOCK_PREFIX}-read-")
        self._key = f"{self._reader_prefix}{self._holder.token}.json" if shared else self._writer_key
        self._etag: str | None = None
        self._renewed = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_regularly, daemon=True)
        self._lost = False

    def acquire(self) -> None:
        """Take the lease without waiting.

        Raises:
            StorageError: another process has it, or the store refuses.
        """
        self._folder.get_filesystem()  # says at once where the bucket is absent or the store is silent
        self._client = connect_boto(self._folder.uri)
        self._renewed = time.monotonic()
        try:
            self._etag = self._put(None) if self._shared else self._take_writer_lease()
        except _NotAllowedError as error:
            if (
                self._shared
            ):  # a dataset that may only be read: no lease of ours, and its writer's still counts
                self._refuse_writer()
                return
            raise StorageError(f"access denied to {self._folder.uri}: it cannot be written") from error
        self._thread.start()
        try:
            if self._shared:
                self._refuse_writer()
            else:
                self._refuse_readers()
        except BaseException:
            self.release()
            raise

    def check_held(self) -> None:
        """Check that no other process has the lease.

        Raises:
            StorageError: the lease was lost.
        """
        if self._lost:
            raise StorageError(
                f"the lock of {self._folder.uri} was lost, since the store did not answer for "
                f"{EXPIRY_S:.0f} s or another run took it: run the same command again to go on"
            )

    @property
    def is_lost(self) -> bool:
        """Whether another process may have the lease now."""
        return self._lost

    def release(self) -> None:
        """Give the lease back."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(RENEWAL_S)
        if self._etag is None or self._lost:
            return
        with contextlib.suppress(StorageError, _ChangedError, _NotAllowedError):
            found = self._get(self._key)
            if found and found.holder and found.holder.token == self._holder.token:
                self._call("delete_object", Key=self._key)
        self._etag = None

    def _take_writer_lease(self) -> str:
        for _ in range(_ATTEMPTS):
            found: _FoundLease | None = None
            with contextlib.suppress(_ChangedError):
                return self._put({"IfNoneMatch": "*"})
            found = self._get(self._writer_key)
            if found is None:
                continue  # given back meanwhile
            if found.holder and found.holder.token == self._holder.token:
                return found.etag  # the store took the request and its answer was lost
            if not found.is_free:
                raise StorageError(self._explain_refusal(found, "writing"))
            with contextlib.suppress(_ChangedError):
                return self._put({"IfMatch": found.etag})
        raise StorageError(f"other runs keep taking the lock of {self._folder.uri}: run the command again")

    def _refuse_writer(self) -> None:
        found = self._get(self._writer_key)
        if found is not None and not found.is_free:
            raise StorageError(self._explain_refusal(found, "writing"))

    def _refuse_readers(self) -> None:
        reply = self._call("list_objects_v2", Prefix=self._reader_prefix)
        for item in reply.get("Contents", []):
            found = self._get(item["Key"])
            if found is None:
                continue
            if not found.is_free:
                raise StorageError(self._explain_refusal(found, "reading"))
            self._call("delete_object", Key=item["Key"])

    def _explain_refusal(self, found: _FoundLease, verb: str) -> str:
        who = found.holder.describe() if found.holder else "an unknown process"
        left = max(0, round(EXPIRY_S - found.age))
        return (
            f"another run is {verb} {self._folder.uri} ({who}): wait for it or stop it; if it is dead, its "
            f"lock ends by itself in {left} s"
        )

    def _renew_regularly(self) -> None:
        while not self._stop.wait(RENEWAL_S):
            try:
                self._renew()
            except _ChangedError:
                break
            except (StorageError, _NotAllowedError):
                late = time.monotonic() - self._renewed > EXPIRY_S - RENEWAL_S
                if late and not self._shared:  # a reader harms nobody
                    break
        else:
            return
        self._lost = True
        os.kill(os.getpid(), signal.SIGINT)  # ends every wait of the main thread

    def _renew(self) -> None:
        """Renew the lease.

        Raises:
            _ChangedError: another process has it.
        """
        try:
            self._etag = self._put(None if self._shared else {"IfMatch": str(self._etag)})
        except _ChangedError:
            found = self._get(self._key)
            if found is None or found.holder is None or found.holder.token != self._holder.token:
                raise
            self._etag = found.etag
        self._renewed = time.monotonic()

    def _put(self, condition: dict[str, str] | None) -> str:
        body = self._holder.encode()
        try:
            reply = self._call("put_object", Key=self._key, Body=body, **(condition or {}))
        except _NoConditionsError:
            found = self._get(self._key)
            if condition and found and not found.is_free and condition.get("IfMatch") != found.etag:
                raise _ChangedError from None
            reply = self._call("put_object", Key=self._key, Body=body)
        return str(reply["ETag"])

    def _get(self, key: str) -> _FoundLease | None:
        try:
            reply = self._call("get_object", Key=key)
        except _ChangedError:  # it is not there
            return None
        now = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - reply["LastModified"]).total_seconds()
        return _FoundLease(LockHolder.decode(reply["Body"].read()), age, str(reply["ETag"]))

    def _call(self, name: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            reply: dict[str, Any] = getattr(self._client, name)(Bucket=self._bucket, **arguments)
            return reply
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status in (404, 409, 412) and code != "NoSuchBucket":
                raise _ChangedError from error
            if status == 501:
                raise _NoConditionsError from error
            if code in _REFUSED_CODES or status in (401, 403, 405):
                raise _NotAllowedError from error
            kind = TransientStorageError if status >= 500 or status == 429 else StorageError
            raise kind(f"cannot lock {self._folder.uri}: {' '.join(str(error).split())}") from error
        except BotoCoreError as error:
            if type(error).__name__ == "NoCredentialsError":
                raise _NotAllowedError from error
            message = " ".join(str(error).split())
            raise TransientStorageError(f"cannot lock {self._folder.uri}: {message}") from error


class _NotAllowedError(Exception):
    """The store does not let us write there."""


class _NoConditionsError(Exception):
    """The store knows no conditional requests."""
