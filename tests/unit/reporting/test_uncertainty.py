from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from softcam.evaluation import EvaluationResult
from softcam.reporting.charts import draw_charts
from softcam.reporting.report import render_report
from softcam.reporting.uncertainty import describe_selective, selective_figure, uncertainty_view
from softcam.reporting.verdicts import coverage_verdict, verdicts


def interval(value: float, half: float = 0.04) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": 40}


def selective(scale: float = 1.0) -> dict[str, Any]:
    return {"area": interval(0.05), "coverage": [0.25, 0.5, 0.75, 1.0], "risk": [0.0, 0.1 * scale, 0.1, 0.2 * scale]}


SETS: dict[str, Any] = {
    "method": "lac", "alpha": 0.1, "target": 0.9, "calibrated_on": 55, "coverage": interval(0.925),
    "expected": [0.8, 0.975], "class_coverage": {"intact": interval(0.95), "<b>": interval(0.85)},
    "size": {"mean": 1.25, "empty": 0.025, "single": 0.7, "several": 0.275, "n": 40},
}  # fmt: skip
UNCERTAINTY = {"temperature": 1.5, "sets": SETS, "selective": {"softcam": selective(), "black_box": selective(1.5)}}


@pytest.fixture
def calibrated(result: EvaluationResult) -> EvaluationResult:
    return replace(result, metrics=result.metrics | {"uncertainty": UNCERTAINTY})


def render(result: EvaluationResult) -> str:
    return render_report(result, draw_charts(result), title="T")


def test_page_shows_what_was_measured_beside_what_was_promised(calibrated: EvaluationResult) -> None:
    text = render(calibrated)
    section = text[text.index('<section id="uncertainty"') :]
    section = section[: section.index("</section>")]
    assert "divided by 1.500" in section
    assert "limit chosen on 55 validation images" in section
    assert "0.925 (0.885\N{EN DASH}0.965)" in section
    assert "0.900 (0.800\N{EN DASH}0.975 for as many images)" in section
    assert "1.250" in section
    assert "27.5" in section
    assert "&lt;b&gt;" in section
    assert "<b>" not in section
    assert '<a href="#uncertainty">' in text
    assert 'id="figure-selective"' in text


def test_without_a_calibration_the_curve_stays(result: EvaluationResult) -> None:
    raw = {"temperature": None, "sets": None, "selective": {"softcam": selective()}}
    text = render(replace(result, metrics=result.metrics | {"uncertainty": raw}))
    assert 'id="figure-selective"' in text
    assert 'id="uncertainty"' not in text
    assert "selective" not in draw_charts(result)
    assert uncertainty_view(result.metrics) is None


def test_a_temperature_alone_has_its_calibration_error(result: EvaluationResult) -> None:
    view = uncertainty_view(result.metrics | {"uncertainty": UNCERTAINTY | {"sets": None}})
    assert view is not None
    assert [row[0] for row in view.rows] == ["Calibration error"]
    assert (view.method, view.classes) == ("", ())
    text = render(replace(result, metrics=result.metrics | {"uncertainty": UNCERTAINTY | {"sets": None}}))
    assert "A prediction set holds" not in text


def test_verdict_is_held_or_broken(calibrated: EvaluationResult) -> None:
    found = coverage_verdict(SETS)
    assert found is not None
    assert (found.state, found.status) == ("held", "as promised")
    assert "hold the true class in 92.5" in found.sentence
    assert found in verdicts(calibrated.metrics)
    less = coverage_verdict(SETS | {"coverage": interval(0.8)})
    assert less is not None
    assert (less.state, less.status) == ("broken", "fewer than promised")
    edge = coverage_verdict(SETS | {"coverage": {"value": 0.85, "low": 0.8, "high": 0.9, "n": 40}})
    assert edge is not None
    assert edge.state == "held"
    assert coverage_verdict(None) is None


def test_figure_draws_every_model(make_result: Callable[..., EvaluationResult]) -> None:
    figure = selective_figure(UNCERTAINTY["selective"])  # type: ignore[arg-type]
    (axes,) = figure.axes
    heights = [line.get_ydata() for line in axes.get_lines()]
    np.testing.assert_allclose(heights[0], [0.0, 0.1, 0.1, 0.2])
    np.testing.assert_allclose(heights[1], [0.0, 0.15, 0.1, 0.3])
    assert axes.get_ylim()[1] == pytest.approx(0.345)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["SoftCAM 0.050 (0.010\N{EN DASH}0.090)", "black box 0.050 (0.010\N{EN DASH}0.090)"]
    assert "SoftCAM 0.050" in describe_selective({"softcam": selective()})
    perfect = {"softcam": {"area": interval(0.0, 0.0), "coverage": [1.0], "risk": [0.0]}}
    assert selective_figure(perfect).axes[0].get_ylim()[1] > 0
