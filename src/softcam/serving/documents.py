"""What the OpenAPI document says of bodies and answers that are written without its models, for speed."""

from __future__ import annotations

from typing import Any

from softcam.serving.problems import MEDIA_TYPE, STATUSES, Problem, describe_problem

_TEXT, _NUMBER, _WHOLE, _FLAG = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
_NUMBERS = {"type": "array", "items": _NUMBER}
_TEXTS = {"type": "array", "items": _TEXT}
_SIZES = {"type": "array", "items": _WHOLE}
_MATRIX = {"type": "array", "items": _NUMBERS}


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = (), description: str = "") -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    found = {"type": "object", "properties": properties, "required": required}
    return {**found, "description": description} if description else found


_GEOMETRY = _object(
    {
        **{f"{whose}_{side}": _NUMBER for whose in ("original", "input") for side in ("height", "width")},
        **dict.fromkeys(("scale_x", "scale_y", "offset_x", "offset_y"), _NUMBER),
    },
    description="original = input * scale + offset on each axis, in pixels; the maps tile the input evenly.",
)
_IDENTITY = _object({"name": _TEXT, "fingerprint": _TEXT})
_PREVIEW = _object({"width": _WHOLE, "height": _WHOLE, "depth": {"enum": [8, 16]}, "png": _TEXT})
_EXPLANATION = _object(
    {
        "status": {"const": "ok"},
        "model": _IDENTITY,
        "predicted": _TEXT,
        "classes": _TEXTS,
        "probabilities": _NUMBERS,
        "logits": _NUMBERS,
        "multi_label": _FLAG,
        "thresholds": {"type": "object", "additionalProperties": _NUMBER},
        "temperature": {**_NUMBER, "description": "What logits are divided by for the probabilities."},
        "prediction_set": {**_optional(_TEXTS), "description": "Of a calibrated model: see `softcam calibrate`."},
        "warnings": {**_TEXTS, "description": "In what the image differs from those of the training."},
        "disagreement": {
            **_optional(_object({"members": _WHOLE, "logits": _NUMBERS, "maps": {"type": "array", "items": _MATRIX}})),
            "description": "Of an ensemble: standard deviations of its members' logits and maps.",
        },
        "grid": _SIZES,
        "maps": {"type": "array", "items": _MATRIX, "description": "One map per class; its mean is the class's logit."},
        "geometry": _GEOMETRY,
        "sum_error": _NUMBER,
        "digest": _TEXT,
        "format": _TEXT,
        "frame": _optional(_WHOLE),
        "frames": _WHOLE,
        "spacing": _optional(_NUMBERS),
        "preview": _optional(_PREVIEW),
    }
)
_FAILURE = _object({"status": {"const": "failed"}, "reason": _TEXT})
_METHOD_INFO = _object({"name": _TEXT, "title": _TEXT, "notes": _TEXT})
_MODEL = _object(
    {
        "name": _TEXT,
        "fingerprint": _TEXT,
        "architecture": _optional(_TEXT),
        "classes": _TEXTS,
        "multi_label": _FLAG,
        "thresholds": {"type": "object", "additionalProperties": _NUMBER},
        "temperature": _NUMBER,
        "preprocessing": {"type": "object"},
        "input": _SIZES,
        "grid": _SIZES,
        "map_stride": _SIZES,
        "receptive_field": _SIZES,
        "theoretical_receptive_field": _optional({"type": "array", "items": _optional(_WHOLE)}),
        "exact": _FLAG,
        "head": _TEXT,
        "notes": _TEXTS,
        "backend": _TEXT,
        "methods": {"type": "array", "items": _METHOD_INFO},
        "limits": {"type": "object", "additionalProperties": _WHOLE},
    }
)
_EXAMPLE = {
    "status": "ok",
    "model": {"name": "elpv", "fingerprint": "9f2c…"},
    "predicted": "defect",
    "classes": ["intact", "defect"],
    "probabilities": [0.119, 0.881],
    "logits": [-1.0, 1.0],
    "multi_label": False,
    "thresholds": {"defect": 0.25},
    "temperature": 1.0,
    "prediction_set": None,
    "warnings": [],
    "disagreement": None,
    "grid": [1, 2],
    "maps": [[[-2.0, 0.0]], [[2.0, 0.0]]],
    "geometry": {
        "original_height": 300,
        "original_width": 300,
        "input_height": 224,
        "input_width": 224,
        "scale_x": 1.339,
        "scale_y": 1.339,
        "offset_x": 0.0,
        "offset_y": 0.0,
    },
    "sum_error": 1.2e-07,
    "digest": "5d41…",
    "format": "PNG",
    "frame": None,
    "frames": 1,
    "spacing": None,
    "preview": None,
}


_MODEL_EXAMPLE = {
    "name": "elpv",
    "fingerprint": "9f2c…",
    "architecture": "timm:tf_efficientnet_lite0",
    "classes": ["intact", "defect"],
    "multi_label": False,
    "thresholds": {"defect": 0.25},
    "preprocessing": {"size": 224, "fit": "shorter"},
    "input": [3, 224, 224],
    "grid": [7, 7],
    "map_stride": [32, 32],
    "receptive_field": [224, 224],
    "theoretical_receptive_field": [299, 299],
    "exact": True,
    "head": "linear",
    "notes": [],
    "backend": "onnxruntime",
    "methods": [{"name": "grad_cam", "title": "Grad-CAM", "notes": ""}],
    "limits": {"max_bytes": 67108864, "max_pixels": 50000000, "max_frames": 10000, "max_files": 32},
}


def _json(schema: dict[str, Any], description: str, **more: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema, **more}}}


EXPLAIN = _json(
    {"anyOf": [_EXPLANATION, {"type": "array", "items": {"anyOf": [_EXPLANATION, _FAILURE]}}]},
    "One explanation for one file; a list, in order, for several.",
    example=_EXAMPLE,
)
METHOD = _json(
    _object({"method": _TEXT, "title": _TEXT, "notes": _TEXT, "target": _WHOLE, "grid": _SIZES, "map": _MATRIX}),
    "The method's map, which covers the network's input evenly, in its own unit.",
    example={
        "method": "grad_cam",
        "title": "Grad-CAM",
        "notes": "",
        "target": 1,
        "grid": [1, 2],
        "map": [[0.0, 1.5]],
    },
)
MODEL = _json(_MODEL, "The model.", example=_MODEL_EXAMPLE)
MODELS = _json(
    _object({"default": _TEXT, "models": {"type": "array", "items": _MODEL}}),
    "Every model.",
    example={"default": "elpv", "models": [_MODEL_EXAMPLE]},
)
DICOM = {
    "description": "A ZIP archive with a file per kind.",
    "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
}
NUMBERS = {
    "description": "Prometheus' text format.",
    "content": {"text/plain": {"schema": _TEXT, "example": 'softcam_requests_total{route="/",status="200"} 1.0'}},
}
_IMAGE_TYPES = (
    *(f"image/{kind}" for kind in ("png", "jpeg", "tiff", "bmp", "webp", "gif")),
    "application/dicom",
    "application/octet-stream",
)
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary", "description": "An image file."}},
                    "required": ["file"],
                    "additionalProperties": {"type": "string", "maxLength": 1000, "description": "Ignored."},
                    "maxProperties": 9,
                },
                "encoding": {"file": {"contentType": ", ".join(_IMAGE_TYPES)}},
            }
        },
    }
}
"""The body of what takes images; /v1/explain takes several parts of that name as well."""

_PROBLEM = _object(
    {"type": _TEXT, "title": _TEXT, "status": _WHOLE, "detail": _TEXT, "request_id": _TEXT},
    description="Problem details (RFC 9457).",
)
REFUSALS = "Whatever is refused is answered with a problem document (RFC 9457): " + ", ".join(
    f"{status} {kind.replace('-', ' ')}" for kind, status in STATUSES.items()
)
"""The problems in a sentence."""

_EVERYWHERE = (401, 403, 404, 421, 429, 500, 503, 507, 408)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problem documents of a route, for OpenAPI.

    Args:
        statuses: Beside those of every route.
    """
    return {status: _describe(status) for status in sorted({*statuses, *_EVERYWHERE})}


def _describe(status: int) -> dict[str, Any]:
    kind = next(kind for kind, found in STATUSES.items() if found == status)
    example = describe_problem(Problem(kind, "what is wrong, and what to do"), "1f0c5d6a9b3e4c77")
    return {
        "description": kind.replace("-", " "),
        "content": {MEDIA_TYPE: {"schema": _PROBLEM, "example": example}},
    }
