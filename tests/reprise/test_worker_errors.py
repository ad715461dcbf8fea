"""An error leaves a worker as text and is raised again as the same error."""

from __future__ import annotations

import pytest

from reprise.errors import ConfigError, RepriseError
from reprise.worker_errors import decode_error, encode_error


def test_an_error_that_a_person_reads_keeps_its_message() -> None:
    found = decode_error(encode_error(ConfigError("unknown key x; did you mean y?")))
    assert isinstance(found, RepriseError) and str(found) == "unknown key x; did you mean y?"


def test_a_bug_comes_with_the_traceback_of_the_worker() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _divide_by_zero()
    found = decode_error(encode_error(caught.value))
    assert type(found) is RuntimeError
    assert str(found).startswith("in a worker:\nTraceback") and "_divide_by_zero" in str(found)


def _divide_by_zero() -> float:
    return 1 / 0
