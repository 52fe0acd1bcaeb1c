"""A trained model on disk: a folder with safetensors, a strict `config.json` and a model card, never a pickle."""

from __future__ import annotations

from softcam.bundle.config import FORMAT_VERSION, BundleConfig, read_config
from softcam.bundle.describe import list_versions
from softcam.bundle.folder import load, load_black_box, save
from softcam.bundle.locate import find_bundle
from softcam.bundle.weights import fingerprint

__all__ = [
    "FORMAT_VERSION",
    "BundleConfig",
    "find_bundle",
    "fingerprint",
    "list_versions",
    "load",
    "load_black_box",
    "read_config",
    "save",
]
