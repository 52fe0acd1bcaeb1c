"""Imports at the first use: of optional libraries, so that softcam works without them, and of public names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from softcam.errors import MissingExtraError


def load_library(module: str, *, extra: str, package: str | None = None) -> Any:
    """Import and return a module of an optional library.

    Args:
        module: Dotted name, e.g. `captum.attr`.
        extra: The extra of softcam that brings the library.
        package: The name under which the library is installed, for the message; default: the module's first part.

    Raises:
        MissingExtraError: If the library, or something that it needs itself, cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(package or module.partition(".")[0], extra) from error


def lazy_names(
    package: str, homes: Mapping[str, str], *, extra: str = "", libraries: frozenset[str] = frozenset()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package, so that importing it costs nothing until a name is used.

    Args:
        package: Its `__name__`.
        homes: Each public name, and the module of the package that has it.
        extra: The extra of softcam that brings what those modules need.
        libraries: Top-level modules of that extra, whose absence is told by its name.

    Returns:
        The two functions. The first raises `AttributeError` for names that are not public, and `MissingExtraError`.

    Reference:
        PEP 562.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in libraries:
                raise
            raise MissingExtraError(missing, extra) from error
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted(sys.modules[package].__all__)
