"""Digests of plain values and of files: the same content gives the same digest on every machine."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

_CHUNK_BYTES = 4 << 20


def compute_digest(*parts: Any, length: int = 16) -> str:
    """Return the first `length` hexadecimal characters of a BLAKE2b digest of the parts.

    Args:
        *parts: values that JSON can hold; of all others the text of `str` counts.
        length: 1..64; 16 characters are 64 bits.
    """
    payload = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str).encode()
    return hashlib.blake2b(payload, digest_size=32).hexdigest()[:length]


class FileHasher:
    """Size and BLAKE2b digest of 128 bits of a file that is read or written piece by piece.

    Attributes:
        bytes: how many were added.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._digest = hashlib.blake2b(digest_size=16)

    def add_bytes(self, data: Any) -> None:
        """Add the next bytes."""
        self._digest.update(data)
        self.bytes += len(data)

    def get_digest(self) -> str:
        """Return the digest, hexadecimal."""
        return self._digest.hexdigest()


class HashingWriter(io.RawIOBase):
    """Passes bytes on to a stream and adds them to a hasher. Closing it leaves the stream open."""

    def __init__(self, stream: Any, hasher: FileHasher) -> None:
        super().__init__()
        self._stream, self._hasher = stream, hasher

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes; return how many."""
        self._stream.write(data)
        self._hasher.add_bytes(data)
        return len(data)


def hash_stream(stream: Any) -> str:
    """Return the digest of a binary stream from its position on, in bounded memory; see `FileHasher`."""
    hasher = FileHasher()
    while chunk := stream.read(_CHUNK_BYTES):
        hasher.add_bytes(chunk)
    return hasher.get_digest()
