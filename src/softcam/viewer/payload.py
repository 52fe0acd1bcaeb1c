"""What the page is told: one explanation, one model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from softcam.viewer.preview import Preview

if TYPE_CHECKING:
    from softcam.nn import ConversionReport
    from softcam.predict import Prediction, Predictor
    from softcam.predict.members import Members


@dataclass(frozen=True)
class ModelName:
    """Which model said it.

    Args:
        name: The name that the page shows.
        fingerprint: SHA-256 of the model's tensors.
        thresholds: Probability from which a class is reported, by name.
        temperature: What logits are divided by for the probabilities; None if not known here.
    """

    name: str
    fingerprint: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    temperature: float | None = None

    @classmethod
    def of(cls, predictor: Predictor, name: str) -> ModelName:
        """Return what names a predictor's model.

        Args:
            predictor: The model.
            name: The name that the page shows.
        """
        return cls(name, predictor.fingerprint, predictor.thresholds, predictor.uncertainty.temperature or 1.0)


@dataclass(frozen=True)
class ImageSource:
    """What kind of file the image came from.

    Args:
        format: "PNG", "JPEG", "DICOM", ..., or "array".
        frames: Images that the file holds.
        frame: Which of them this is, counted from 1; None where there is one.
    """

    format: str = "array"
    frames: int = 1
    frame: int | None = None


def describe(
    prediction: Prediction,
    *,
    model: ModelName,
    source: ImageSource | None = None,
    preview: Preview | None = None,
) -> dict[str, Any]:
    """Return one explanation as the page and the service's clients read it.

    Args:
        prediction: What the model says; a failed one is described by its reason alone.
        model: Which model said it.
        source: What kind of file the image came from; default: an array.
        preview: The picture to draw the maps on; None for none.

    Returns:
        Values for JSON; probabilities, logits and maps are float32 arrays, so that a writer can give each number the
        shortest text that reads back as the same float32. `to_json` is such a writer.
    """
    if prediction.status == "failed" or prediction.geometry is None:
        return {"status": "failed", "reason": prediction.reason}
    source = source or ImageSource()
    return {
        "status": "ok",
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "predicted": prediction.predicted,
        "classes": list(prediction.classes),
        "probabilities": _contiguous(prediction.probabilities),
        "logits": _contiguous(prediction.logits),
        "multi_label": prediction.multi_label,
        "thresholds": dict(model.thresholds),
        "temperature": model.temperature,
        "prediction_set": None if prediction.prediction_set is None else list(prediction.prediction_set),
        "warnings": list(prediction.warnings),
        "disagreement": None if prediction.members is None else _describe_members(prediction.members),
        "grid": list(prediction.maps.shape[1:]),
        "maps": _contiguous(prediction.maps),
        "geometry": prediction.geometry.to_dict(),
        "sum_error": float(prediction.sum_error),
        "digest": prediction.digest,
        "format": source.format,
        "frame": source.frame,
        "frames": source.frames,
        "spacing": None if prediction.spacing is None else [float(value) for value in prediction.spacing],
        "preview": None if preview is None else preview.to_dict(),
    }


def _describe_members(members: Members) -> dict[str, Any]:
    """Return how far the members of an ensemble are apart: standard deviations of each logit and of each cell."""
    return {
        "members": len(members),
        "logits": _contiguous(members.deviate_logits()),
        "maps": _contiguous(members.deviate_maps()),
    }


def describe_model(predictor: Predictor, *, name: str) -> dict[str, Any]:
    """Return what the page shows of a model, above all how far its cells see.

    Args:
        predictor: The model with its preprocessing and classes.
        name: The name that the page shows.
    """
    known = ModelName.of(predictor, name)
    report = predictor.model.conversion
    bound = report.theoretical_receptive_field
    side = predictor.preprocessing.size
    return {
        "name": known.name,
        "fingerprint": known.fingerprint,
        "architecture": None,
        "classes": list(predictor.classes),
        "multi_label": predictor.model.multi_label,
        "thresholds": dict(known.thresholds),
        "temperature": known.temperature,
        "preprocessing": predictor.preprocessing.to_dict(),
        "input": [predictor.preprocessing.channels, side, side],
        "grid": _find_grid(report, side),
        "map_stride": list(report.map_stride),
        "receptive_field": list(report.receptive_field),
        "theoretical_receptive_field": list(bound) if bound else None,
        "exact": report.exact,
        "head": report.head,
        "notes": list(report.notes),
        "backend": predictor.backend,
        "methods": [],
        "limits": {},
    }


def _find_grid(report: ConversionReport, side: int) -> list[int]:
    """Return the cells of a map at the size at which the model is used, which may not be that of its probe images."""
    if tuple(report.input_size) == (side, side):
        return list(report.grid)
    return [math.ceil(side / stride) for stride in report.map_stride]


def to_json(value: Any) -> str:
    """Write values for JSON that hold numpy arrays; each float32 gets the shortest text that reads back the same.

    Args:
        value: What `describe` returns, or dictionaries and lists of such.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON does not know.

    Example:
        >>> to_json({"maps": np.array([0.1, -2.0], np.float32)})
        '{"maps":[0.1,-2.0]}'
    """
    return json.dumps(value, default=_to_lists, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _contiguous(values: Any) -> Any:
    return np.ascontiguousarray(values, dtype=np.float32)


def _to_lists(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"Expected values for JSON or numpy arrays, but got {type(value).__name__}.")
    if value.dtype != np.float32:
        return value.tolist()
    # The text of a float32, read as a float64, is written with the same few digits.
    shortest = np.array([float(str(number)) for number in value.ravel()])
    return shortest.reshape(value.shape).tolist()
