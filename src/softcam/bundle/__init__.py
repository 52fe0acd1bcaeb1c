"""A trained model on disk: a folder with safetensors, a strict `config.json` and a model card, never a pickle."""

from __future__ import annotations

from softcam.bundle.calibration import Calibration
from softcam.bundle.checkpoint import adopt, read_checkpoint
from softcam.bundle.config import FORMAT_VERSION, BundleConfig, read_config
from softcam.bundle.describe import list_versions
from softcam.bundle.folder import load, load_black_box, save
from softcam.bundle.inputs import FeatureStatistics, InputStatistics
from softcam.bundle.locate import find_bundle
from softcam.bundle.measure import measure_inputs, measure_intensities
from softcam.bundle.members import join_bundles
from softcam.bundle.update import update
from softcam.bundle.weights import fingerprint

__all__ = [
    "FORMAT_VERSION",
    "BundleConfig",
    "Calibration",
    "FeatureStatistics",
    "InputStatistics",
    "adopt",
    "find_bundle",
    "fingerprint",
    "join_bundles",
    "list_versions",
    "load",
    "load_black_box",
    "measure_inputs",
    "measure_intensities",
    "read_checkpoint",
    "read_config",
    "save",
    "update",
]
