"""The libraries that only DICOM files need, imported at the first use so that softcam works without them."""

from __future__ import annotations

import importlib
from typing import Any

from softcam.errors import MissingExtraError


def load_library(module: str, *, package: str, extra: str = "dicom") -> Any:
    """Import and return a module of an optional library.

    Args:
        module: Dotted name, e.g. `pydicom.filereader`.
        package: The name under which the library is installed, for the message.
        extra: The extra of softcam that brings the library.

    Raises:
        MissingExtraError: If the library, or something that it needs itself, cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(package, extra) from error
