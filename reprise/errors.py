"""The one exception that a person is meant to read."""

from __future__ import annotations


class RepriseError(Exception):
    """Bad input or bad configuration, said in one line: what is wrong and what to do.

    Doors print `str(error)` without a traceback and exit with status 2. Anything else that escapes is a bug.
    """
