"""Images in, predictions with their evidence out: streamed, batched, in bounded memory."""

from __future__ import annotations

from softcam.predict.checks import Checks
from softcam.predict.inputs import Outcome, PreparedImage, Readable
from softcam.predict.members import Members
from softcam.predict.prediction import Prediction, decide
from softcam.predict.predictor import Predictor
from softcam.predict.uncertainty import Uncertainty

__all__ = [
    "Checks",
    "Members",
    "Outcome",
    "Prediction",
    "Predictor",
    "PreparedImage",
    "Readable",
    "Uncertainty",
    "decide",
]
