"""A small evaluation result whose numbers can be checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from softcam.attribution import METHODS
from softcam.evaluation import EvaluationResult, GalleryCase

_METHODS = ("evidence", "grad_cam", "random")


def _interval(value: float, n: int = 40) -> dict[str, Any]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": n}


def _case(kind: str, label: int, predicted: int, classes: tuple[str, ...]) -> GalleryCase:
    generator = np.random.default_rng(label * 2 + predicted)
    maps = generator.normal(size=(2, 3, 3)).astype(np.float32)
    maps[predicted] += 2
    logits = maps.mean((1, 2))
    probabilities = np.exp(logits) / np.exp(logits).sum()
    return GalleryCase(
        image_id=f"images/{kind}_{label}{predicted}.png",
        kind=kind,
        label=classes[label],
        predicted=classes[predicted],
        classes=classes,
        probabilities=probabilities,
        logits=logits,
        maps=maps,
        margin=maps[predicted] - maps[1 - predicted],
        pixels=generator.integers(0, 255, (12, 12, 3), dtype=np.uint8),
        geometry={},
        peers={"grad_cam": np.abs(maps[predicted]), "random": generator.random((80, 80)).astype(np.float32)},
    )


def _benchmark() -> pd.DataFrame:
    rows = [
        {"method": method, "metric": metric, "direction": direction, "n": 20 - index, "undefined": index}
        | {"value": value - 0.1 * index, "low": value - 0.1 * index - 0.02, "high": value - 0.1 * index + 0.02}
        for metric, direction, value in (("deletion_area_mean", "lower", 0.6), ("gini", "higher", 0.5))
        for index, method in enumerate(_METHODS)
    ]
    return pd.DataFrame(rows)


def _curves() -> pd.DataFrame:
    rows = [
        {"method": method, "curve": curve, "fill": fill, "patches": patches, "fraction": patches / 16, "n": 20}
        | {"probability": 0.9 - patches / 20, "low": 0.8 - patches / 20, "high": 0.95 - patches / 20}
        for method in _METHODS
        for curve in ("deletion", "insertion")
        for fill in ("mean", "blur")
        for patches in (0, 4, 8)
    ]
    return pd.DataFrame(rows)


def _metrics(classes: tuple[str, ...]) -> dict[str, Any]:
    report = {
        name: _interval(0.85) for name in ("auroc", "average_precision", "accuracy", "sensitivity", "specificity")
    }
    report |= {"precision": _interval(0.8), "brier": _interval(0.1), "ece": _interval(0.06)}
    models = ("softcam", "black_box")
    bins = [{"confidence": 0.2, "accuracy": 0.1, "count": 20}, {"confidence": 0.8, "accuracy": 0.9, "count": 20}]
    return {
        "classification": report,
        "black_box": report | {"auroc": _interval(0.86)},
        "noninferiority": {
            "metric": "auroc",
            "difference": -0.01,
            "low": -0.015,
            "margin": 0.02,
            "passed": True,
            "n": 40,
        },
        "identity": {"max_relative_error": 2.1e-7, "n": 40, "tolerance": 1e-5},
        "calibration": dict.fromkeys(models, bins),
        "confusion": {"softcam": [[18, 2], [4, 16]], "black_box": [[17, 3], [5, 15]]},
        "roc": {name: {"fpr": [0, 0.1, 1], "tpr": [0, 0.8, 1]} for name in models},
        "pr": {name: {"recall": [0.2, 0.8, 1], "precision": [1, 0.9, 0.5]} for name in models},
        "consistency": {"positive_share": _interval(0.7, 20), "negative_share": _interval(0.6, 20)},
        "locality": {
            "receptive_field": _interval(11.0, 12),
            "context_swap": {"32": _interval(0.4, 12), "64": _interval(0.2, 12)},
            "scales": [_interval(0.7, 12), _interval(0.3, 12)],
            "images": 12,
        },
        "conversion": {
            "map_stride": [16, 16],
            "receptive_field": [200, 200],
            "input_size": [224, 224],
            "places": ["fine", "coarse"],
        },
        "comparisons": [],
        "thresholds": {"softcam": 0.4, "black_box": None},
        "classes": list(classes),
        "counts": {"test": 40, "failed": 0, "faithfulness": 20, "faithfulness_slow": 8},
    }


_PROVENANCE = {
    "command": "softcam evaluate model --data data --out out",
    "seed": 7,
    "settings": {"resamples": 1000, "fills": ("mean", "blur")},
    "versions": {"softcam": "0.1.0", "torch": "2.4"},
    "data_digest": "d1" * 32,
    "model_fingerprint": "f1" * 32,
    "failures": [{"image": f"bad_{index}.png", "reason": "truncated"} for index in range(6)],
    "undefined": {},
    "subsamples": {"explained": {"n": 20, "reason": "takes long", "images": [f"{index}.png" for index in range(20)]}},
}


@pytest.fixture(scope="session")
def make_result() -> Callable[..., EvaluationResult]:
    """Build a result; keywords replace entries of its metrics."""

    def build(classes: tuple[str, ...] = ("intact", "defect"), **changes: Any) -> EvaluationResult:
        gallery = tuple(_case(*case, classes) for case in (("right", 1, 1), ("right", 0, 0), ("wrong", 1, 0)))
        metrics = _metrics(classes) | changes
        return EvaluationResult(metrics, _benchmark(), _curves(), pd.DataFrame(), gallery, dict(_PROVENANCE))

    return build


@pytest.fixture(scope="session")
def result(make_result: Callable[..., EvaluationResult]) -> EvaluationResult:
    return make_result()


@pytest.fixture(scope="session")
def bare_result(make_result: Callable[..., EvaluationResult]) -> EvaluationResult:
    """No black box, no comparison of methods, no gallery, no curves."""
    absent = dict.fromkeys(("black_box", "noninferiority", "conversion")) | {"locality": {}}
    only = {
        name: {"softcam": make_result().metrics[name]["softcam"]} for name in ("calibration", "confusion", "roc", "pr")
    }
    result = make_result(**absent, **only)
    return replace(result, benchmark=result.benchmark[:0], curves=result.curves[:0], gallery=())


MANY_METHODS = (
    *METHODS,
    *("evidence:sparse", "evidence_margin:sparse", "evidence:<i>stride</i> 8"),
    *(f"{name}@blocks.{place}" for place in (1, 2) for name in ("grad_cam", "layer_cam", "hires_cam")),
)
"""30 methods."""

MANY_METRICS = {
    **dict.fromkeys(("pointing_game", "pixel_auroc", "pixel_average_precision", "activation_precision"), "higher"),
    **dict.fromkeys(("activation_sensitivity", "rank_accuracy", "topk_precision", "localization_precision"), "higher"),
    **{f"deletion_area_{fill}": "lower" for fill in ("mean", "blur", "noisy_linear")},
    **{f"insertion_area_{fill}": "higher" for fill in ("mean", "blur", "noisy_linear")},
    **{f"relative_drop_{fill}": "lower" for fill in ("mean", "blur", "noisy_linear")},
    **dict.fromkeys(("average_drop", "road_morf", "infidelity", "max_sensitivity", "random_logit"), "lower"),
    **dict.fromkeys(("confidence_increase", "road_lerf", "road_combined", "irof", "sensitivity_n"), "higher"),
    **dict.fromkeys(("randomization_top", "randomization_all", "entropy", "components"), "lower"),
    **dict.fromkeys(("grid_pointing", "gini", "near_zero_share"), "higher"),
}
"""34 metrics; `confidence_increase` will have no value."""


def _many_rows() -> list[dict[str, Any]]:
    rows = []
    for place, method in enumerate(MANY_METHODS):
        _, _, layer = method.partition("@")
        model = method.partition(":")[2] or ("softcam" if method.startswith("evidence") else "black_box")
        for metric, direction in MANY_METRICS.items():
            value = float("nan") if metric == "confidence_increase" else 0.9 - 0.02 * place
            ends = {"value": value, "low": value - 0.05, "high": value + 0.05}
            row = {"method": method, "metric": metric, "direction": direction, **ends, "n": 20, "undefined": 4}
            rows.append(row | {"model": model, "layer": layer})
    return rows


@pytest.fixture(scope="session")
def big_result(make_result: Callable[..., EvaluationResult]) -> EvaluationResult:
    """30 methods, 34 metrics, three SoftCAM models, methods at two layers; the first methods have higher values."""
    base = make_result()
    curves = [
        {
            "method": method,
            "curve": curve,
            "fill": "noisy_linear",
            "patches": patches,
            "fraction": patches / 16,
            "n": 20,
        }
        | {"probability": 0.5 + 0.01 * place - patches / 40, "low": 0.2, "high": 0.8}
        for place, method in enumerate(MANY_METHODS)
        for curve in ("deletion", "insertion")
        for patches in (0, 4, 8)
    ]
    comparisons = [
        {"method": method, "against": "evidence", "metric": metric, "low": -0.3, "high": -0.1, "p_holm": 0.001}
        for method in MANY_METHODS[1:]
        for metric in MANY_METRICS
    ]
    other = {"classification": base.metrics["classification"], "consistency": base.metrics["consistency"]}
    other |= {"noninferiority": base.metrics["noninferiority"] | {"passed": False}, "max_relative_error": 3e-7}
    metrics = base.metrics | {"comparisons": comparisons, "others": {"sparse": other, "<i>stride</i> 8": other}}
    return replace(base, metrics=metrics, benchmark=pd.DataFrame(_many_rows()), curves=pd.DataFrame(curves))
