"""The version of this package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def winnow_version() -> str:
    """The installed version of winnow, or "unknown" when it runs from a checkout that is not installed."""
    try:
        return version("winnow-images")
    except PackageNotFoundError:
        return "unknown"
