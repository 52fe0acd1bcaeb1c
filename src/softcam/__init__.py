"""Image classifiers whose prediction is its own explanation: the logits are the mean of the evidence maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcam._version import __version__
from softcam.libraries import lazy_names

if TYPE_CHECKING:
    from softcam.backbones import create_black_box
    from softcam.bundle import load, save
    from softcam.nn import ConversionReport, ElasticNet, Ensemble, Evidence, SoftCAM, convert
    from softcam.predict import Prediction, Predictor
    from softcam.reporting import plot
    from softcam.viewer import view

_HOMES = {
    "ConversionReport": "nn",
    "ElasticNet": "nn",
    "Ensemble": "nn",
    "Evidence": "nn",
    "Prediction": "predict",
    "Predictor": "predict",
    "SoftCAM": "nn",
    "convert": "nn",
    "create_black_box": "backbones",
    "load": "bundle",
    "plot": "reporting",
    "save": "bundle",
    "view": "viewer",
}

__all__ = [
    "ConversionReport",
    "ElasticNet",
    "Ensemble",
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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
