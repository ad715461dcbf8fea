"""Read a JSON object of a folder, or say in one line why that cannot be done."""

from __future__ import annotations

import json
from typing import Any

from reprise.errors import StorageError
from reprise.storage import Storage


def read_json_object(
    folder: Storage, path: str, hint: str = "was it edited by hand?"
) -> dict[str, Any] | None:
    """Read a file that holds one JSON object; None if there is no such file.

    Args:
        folder: that holds the file.
        path: of the file, below the folder.
        hint: what to do about a file that cannot be used, for the message.

    Raises:
        StorageError: it cannot be read, is not JSON, is nested too deeply, or holds something else.
    """
    if not folder.is_file(path):
        return None
    where = folder.join_path(path)
    try:
        found = json.loads(folder.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{where} is not JSON: {hint}") from error
    if not isinstance(found, dict):
        raise StorageError(f"{where} does not hold a JSON object: {hint}")
    return found
