"""The libraries that only an export needs, imported at the first use so that softcam works without them."""

from __future__ import annotations

import importlib
from typing import Any

from softcam.errors import MissingExtraError


def load_library(package: str, *, extra: str = "onnx") -> Any:
    """Import and return an optional library.

    Args:
        package: Its name, both to import and to install.
        extra: The extra of softcam that brings it.

    Raises:
        MissingExtraError: If the library, or something that it needs itself, cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, extra) from error
