"""Models and results in the formats and places of others: the Hugging Face hub, and DICOM in `interop.dicom`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softcam.interop.hub import HubSoftCAM, download_bundle

__all__ = ["HubSoftCAM", "download_bundle"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: who needs DICOM alone need not have the hub's library."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("softcam.interop.hub"), name)
