"""Models and results in the formats and places of others: the Hugging Face hub."""

from __future__ import annotations

from softcam.interop.hub import HubSoftCAM, download_bundle

__all__ = ["HubSoftCAM", "download_bundle"]
