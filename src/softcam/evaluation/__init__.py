"""Model x method x metric: one honest comparison on the same test images."""

from __future__ import annotations

from softcam.evaluation.calibration import CalibrationResult, CalibrationSettings, calibrate
from softcam.evaluation.evaluate import evaluate
from softcam.evaluation.predictions import Progress
from softcam.evaluation.result import EvaluationResult, GalleryCase, write_evaluation
from softcam.evaluation.settings import CHEAP_MEASURES, MEASURES, EvaluationSettings

__all__ = [
    "CHEAP_MEASURES",
    "MEASURES",
    "CalibrationResult",
    "CalibrationSettings",
    "EvaluationResult",
    "EvaluationSettings",
    "GalleryCase",
    "Progress",
    "calibrate",
    "evaluate",
    "write_evaluation",
]
