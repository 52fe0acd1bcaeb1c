"""Optional libraries, imported at the first use so that softcam works without them."""

from __future__ import annotations

import importlib
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
