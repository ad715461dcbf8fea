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
