"""Image classifiers whose prediction is its own explanation: the logits are the mean of the evidence maps."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from softcam._version import __version__

if TYPE_CHECKING:
    from softcam.backbones import create_black_box
    from softcam.bundle import load, save
    from softcam.nn import ConversionReport, ElasticNet, Evidence, SoftCAM, convert
    from softcam.predict import Prediction, Predictor
    from softcam.reporting import plot
    from softcam.viewer import view

_HOMES = {
    "ConversionReport": "softcam.nn",
    "ElasticNet": "softcam.nn",
    "Evidence": "softcam.nn",
    "Prediction": "softcam.predict",
    "Predictor": "softcam.predict",
    "SoftCAM": "softcam.nn",
    "convert": "softcam.nn",
    "create_black_box": "softcam.backbones",
    "load": "softcam.bundle",
    "plot": "softcam.reporting",
    "save": "softcam.bundle",
    "view": "softcam.viewer",
}

__all__ = [
    "ConversionReport",
    "ElasticNet",
    "Evidence",
    "Prediction",
    "Predictor",
    "SoftCAM",
    "__version__",
    "convert",
    "create_black_box",
    "load",
    "plot",
    "save",
    "view",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing softcam costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
