"""Digests of plain values: the same value gives the same digest on every machine."""

from __future__ import annotations

import hashlib
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


def hash_stream(stream: Any) -> str:
    """Return the BLAKE2b digest of 128 bits of a binary stream from its position on, in bounded memory."""
    digest = hashlib.blake2b(digest_size=16)
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
