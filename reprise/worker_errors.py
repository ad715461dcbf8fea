"""Errors on their way out of a Ray worker, as text in a column.

Ray would wrap an exception in pages of its own, and Ray Data would count it as the death of a worker.
"""

from __future__ import annotations

import json
import traceback

from reprise.errors import RepriseError


def encode_error(error: Exception) -> str:
    """An exception as text. Of a RepriseError the message travels, of others the traceback."""
    is_expected = isinstance(error, RepriseError)
    text = str(error) if is_expected else "".join(traceback.format_exception(error))
    return json.dumps([is_expected, text])


def decode_error(text: str) -> Exception:
    """The exception that `encode_error` encoded: RepriseError, or RuntimeError with a worker's traceback."""
    is_expected, message = json.loads(text)
    return RepriseError(message) if is_expected else RuntimeError(f"in a worker:\n{message}")
