"""Text and JSON from files that may hold anything."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MAX_DEPTH = 64  # of nested JSON; nothing that lists videos is nested deeper


_UNDECODED = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are no text


class BadTextError(Exception):
    """Bytes that are no text, or text that is no JSON; `str(error)` is the reason."""


def decode_text(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark; the mark is taken off.

    Raises:
        BadTextError: any other encoding.
    """
    encoding = "utf-16" if data[:2] in _UTF16_MARKS else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadTextError("not UTF-8 text") from error


def decode_lines(data: bytes) -> str:
    """Decode text like `decode_text`, but keep bytes that are not UTF-8 as what `is_text` finds.

    Raises:
        BadTextError: damaged UTF-16.
    """
    try:
        return decode_text(data)
    except BadTextError:
        if data[:2] in _UTF16_MARKS:
            raise
        return data.decode("utf-8-sig", "surrogateescape")


def is_text(text: str) -> bool:
    """Tell whether all of what `decode_lines` gave was text."""
    return not _UNDECODED.search(text)


def quote_names(names: Iterable[str]) -> str:
    """Join names for a message: none of them too long, and nothing in them that cannot be printed."""
    shown = ("".join(each if each.isprintable() else ascii(each)[1:-1] for each in name) for name in names)
    return ", ".join(name[:60] for name in islice(shown, 20))


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
            return (
                "half of a surrogate pair, which is no text" if is_text(value) else "bytes that are not UTF-8"
            )
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
