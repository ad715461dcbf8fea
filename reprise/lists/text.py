"""Text and JSON from files that may hold anything."""

from __future__ import annotations

import json
import math
from typing import Any

_MAX_DEPTH = 64  # of nested JSON; nothing that lists videos is nested deeper


class BadTextError(Exception):
    """Bytes that are no text, or text that is no JSON; `str(error)` is the reason."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.line = line  # from 1; 0: not known


def decode_text(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark; the mark is taken off.

    Raises:
        BadTextError: any other encoding.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadTextError("not UTF-8 text", data[: error.start].count(b"\n") + 1) from error


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        BadTextError: it is no JSON.
        DeepNestingError: it is nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DeepNestingError from error
    except ValueError as error:
        raise BadTextError(str(error)) from error


class DeepNestingError(BadTextError):
    """JSON that is nested too deeply."""

    def __init__(self) -> None:
        super().__init__("nested too deeply")


def find_bad_value(value: Any, depth: int = 0) -> str | None:
    """Say why a value cannot be stored: nested too deeply, or text that cannot be encoded; None: it can."""
    if depth > _MAX_DEPTH:
        return "nested too deeply"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair, which is no text"
        return None
    if isinstance(value, dict):
        inside = [*value, *value.values()]
    else:
        inside = list(value) if isinstance(value, list | tuple) else []
    return next((bad for each in inside if (bad := find_bad_value(each, depth + 1))), None)


def clean_text(value: Any) -> str | None:
    """Return a caption or a license as one line; of a list the first; None where there is none."""
    if isinstance(value, list | tuple):
        return next((text for item in value if (text := clean_text(item))), None)
    if value is None or isinstance(value, dict) or (isinstance(value, float) and math.isnan(value)):
        return None
    return " ".join(str(value).split()) or None


def make_json_safe(value: Any) -> Any:
    """Return a value as strict JSON has it: no NaN, no infinity, no keys but text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): make_json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [make_json_safe(item) for item in value]
    return value
