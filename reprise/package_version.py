"""Versions of installed packages."""

from __future__ import annotations

import importlib.metadata


def get_package_version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed. The package is not imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
