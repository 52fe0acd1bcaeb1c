"""Models and results in the formats and places of others: the Hugging Face hub, and DICOM in `interop.dicom`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcam.libraries import lazy_names

if TYPE_CHECKING:
    from softcam.interop.hub import HubSoftCAM, download_bundle

__all__ = ["HubSoftCAM", "download_bundle"]

# Who needs DICOM alone need not have the hub's library.
__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "hub"))
