"""What a record says: of the circumstances once, of each prediction what is needed to compute it again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from softcam.bundle import list_versions
from softcam.predict import Prediction, Predictor
from softcam.versions import installed_versions

_RUNTIMES = ("onnxruntime", "openvino", "pillow", "pydicom")


def digest_json(values: Any) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(canonical(values)).hexdigest()


def canonical(values: Any) -> bytes:
    """Return the one text of JSON values: keys sorted, no spaces, ASCII.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def digest_array(values: npt.NDArray[np.floating]) -> str:
    """Return the SHA-256 of an array's shape and numbers as little-endian float32."""
    numbers = np.ascontiguousarray(values, dtype="<f4")
    return hashlib.sha256(json.dumps(list(numbers.shape)).encode() + numbers.tobytes()).hexdigest()


def describe_context(predictor: Predictor, *, name: str = "") -> dict[str, Any]:
    """Return what all predictions of a model have in common, in JSON values.

    Args:
        predictor: The model, its preprocessing and what runs it.
        name: What the model is called, if it has a name.
    """
    return {
        "kind": "context",
        "name": name,
        "model": predictor.identity,
        "backend": predictor.backend,
        "device": str(predictor.device),
        "versions": {**list_versions(), **installed_versions(_RUNTIMES)},
    }


def describe_prediction(
    prediction: Prediction, *, name: str, frame: int | None = None, file: str | None = None
) -> dict[str, Any]:
    """Return what is recorded of one prediction, in JSON values.

    Args:
        prediction: What the model said; of a failed one the reason.
        name: What the image is called.
        frame: Which one of a file with several, from 1.
        file: Where the evidence is kept, relative to the folder of the records; None if it is not.
    """
    image = {"name": name, "digest": prediction.digest, "frame": frame}
    if prediction.status == "failed":
        return {"kind": "failure", "image": image, "reason": prediction.reason}
    found = {} if prediction.prediction_set is None else {"prediction_set": list(prediction.prediction_set)}
    return {
        "kind": "prediction",
        "image": image,
        "predicted": prediction.predicted,
        **found,
        "warnings": list(prediction.warnings),
        # Written as the shortest text of the float32, which is read back exactly.
        "logits": [float(str(value)) for value in prediction.logits],
        "probabilities": [float(str(value)) for value in prediction.probabilities],
        "evidence": {"shape": list(prediction.maps.shape), "digest": digest_array(prediction.maps), "file": file},
        "sum_error": prediction.sum_error,
    }
