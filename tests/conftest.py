from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
if str(REPOSITORY) not in sys.path:
    # `tests.*` is importable however pytest was started.
    sys.path.insert(0, str(REPOSITORY))

from tests.browser import browser  # noqa: E402
from tests.s3 import s3, s3_endpoint  # noqa: E402

__all__ = ["browser", "s3", "s3_endpoint", "samples_dir"]


@pytest.fixture(scope="session")
def samples_dir() -> Path:
    """Real clips that are not part of the repository; without them, a test that wants them is skipped."""
    folder = Path(os.environ.get("REPRISE_SAMPLES") or REPOSITORY.parent / "shared" / "samples")
    if not folder.is_dir():
        pytest.skip(f"no sample videos at {folder}: set REPRISE_SAMPLES")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of training, and keep together on one process what shares fixtures or wants a machine.

    With `--dist loadgroup`, tests that start Ray run on one process, one after the other. Other tests of one
    file stay on one process, too, so that its fixtures are made once.
    """
    for item in items:
        folder = item.path.relative_to(REPOSITORY).parts
        if folder[:2] == ("tests", "training"):
            item.add_marker(pytest.mark.training)
        group = "ray" if item.get_closest_marker("ray") else str(item.path.relative_to(REPOSITORY))
        item.add_marker(pytest.mark.xdist_group(group))
