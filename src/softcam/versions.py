"""Which versions a result was made with."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed, in the given order.

    Args:
        packages: Names of distributions, as pip knows them.

    Example:
        >>> list(installed_versions(["torch", "no-such-package"]))
        ['torch']
    """
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
