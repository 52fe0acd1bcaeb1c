from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from softcam.evaluation import EvaluationResult, evaluate
from softcam.evaluation.comparison import compare_methods
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions


def test_benchmark_is_tidy_and_complete(result: EvaluationResult) -> None:
    table = result.benchmark
    assert list(table.columns) == ["method", "metric", "direction", "value", "low", "high", "n", "undefined"]
    assert not table.duplicated(["method", "metric"]).any()
    assert len(table) == 4 * 10
    assert (table["n"] + table["undefined"] == 6).all()
    defined = table[table["n"] > 1]
    assert (defined["low"] <= defined["value"]).all()
    assert (defined["value"] <= defined["high"]).all()


def test_curves_start_with_the_same_images_for_every_method_of_a_model(result: EvaluationResult) -> None:
    table = result.curves
    assert list(table.columns) == [
        "method", "curve", "fill", "patches", "fraction", "probability", "low", "high", "n",
    ]  # fmt: skip
    assert len(table) == 4 * 2 * 2 * 3
    starts = table[(table["patches"] == 0) & (table["fill"] == "mean")].set_index(["method", "curve"])["probability"]
    assert starts["evidence", "deletion"] == starts["evidence_margin", "deletion"]
    assert starts["grad_cam", "deletion"] == starts["random", "deletion"]
    assert starts["evidence", "deletion"] != starts["grad_cam", "deletion"]
    assert table["fraction"].max() == pytest.approx(8 / 256)


def test_differences_are_paired_against_evidence_and_corrected(result: EvaluationResult) -> None:
    records = result.metrics["comparisons"]
    assert {record["method"] for record in records} == {"evidence_margin", "grad_cam", "random"}
    assert {record["against"] for record in records} == {"evidence"}
    assert len(records) == 3 * 10
    assert all(record["p_holm"] >= record["p"] for record in records if not np.isnan(record["p"]))
    values = result.benchmark.set_index(["method", "metric"])["value"]
    for record in records:
        if record["metric"] == "gini":
            expected = values[record["method"], "gini"] - values["evidence", "gini"]
            assert record["difference"] == pytest.approx(expected)


def test_slow_methods_explain_fewer_of_the_same_images(
    world: Any, models: Contestants, predictions: Predictions
) -> None:
    settings = world.settings(methods=("evidence", "integrated_gradients"), fills=("mean",))
    found = compare_methods(models, world.manifest.subset("test"), predictions, settings)
    assert set(found.slow_images) < set(found.images)
    assert len(found.images) == 6
    assert found.benchmark.groupby("method")["n"].max().to_dict() == {"evidence": 6, "integrated_gradients": 2}
    assert {record["n"] for record in found.differences if record["metric"] == "gini"} == {2}
    assert set(found.seconds) == {"evidence", "integrated_gradients"}


def test_a_missing_library_leaves_a_method_undefined(
    world: Any, models: Contestants, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    settings = world.settings(methods=("evidence", "grad_cam"), fills=("mean",))
    found = compare_methods(models, world.manifest.subset("test"), predictions, settings)
    assert "softcam[peers]" in found.undefined["grad_cam"]
    rows = found.benchmark[found.benchmark["method"] == "grad_cam"]
    assert (rows["undefined"] == 6).all()
    assert rows["value"].isna().all()
    assert found.differences == []
    assert set(found.curves["method"]) == {"evidence"}


def test_no_reference_no_differences(world: Any, models: Contestants, predictions: Predictions) -> None:
    settings = world.settings(methods=("random",), fills=("mean",))
    assert compare_methods(models, world.manifest.subset("test"), predictions, settings).differences == []


def test_comparison_can_be_left_out(world: Any) -> None:
    found = evaluate(world.softcam, world.manifest, settings=world.settings(explained=0, right=0, wrong=0))
    assert found.metrics["counts"]["faithfulness"] == 0
    assert found.metrics["comparisons"] == []
    assert found.benchmark["value"].isna().all()
    assert found.curves.empty
    assert found.gallery == ()


def test_batches_do_not_change_the_numbers(world: Any, models: Contestants, predictions: Predictions) -> None:
    part = world.manifest.subset("test")
    settings = world.settings(methods=("evidence", "random"), fills=("mean",))
    first = compare_methods(models, part, predictions, settings).benchmark
    second = compare_methods(models, part, predictions, replace(settings, batch_size=2)).benchmark
    np.testing.assert_allclose(first["value"], second["value"], rtol=1e-4, atol=1e-4)


def test_progress_counts_methods_and_batches(world: Any, models: Contestants, predictions: Predictions) -> None:
    seen: list[tuple[str, int, int]] = []
    settings = world.settings(methods=("evidence", "random"), fills=("mean",))
    compare_methods(
        models, world.manifest.subset("test"), predictions, settings, progress=lambda *step: seen.append(step)
    )
    assert seen == [("explain", done, 4) for done in (1, 2, 3, 4)]
