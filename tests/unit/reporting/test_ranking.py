from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.colors import to_hex

from softcam.evaluation import EvaluationResult
from softcam.reporting.figures import PALETTE
from softcam.reporting.ranking import describe_ranking, rank_methods, ranking_figure, shorten


def _rows(metric: str, direction: str) -> pd.DataFrame:
    found = {"grad_cam": 0.2, "evidence": 0.5, "random": float("nan"), "edges": 0.3}
    rows = [
        {"method": name, "metric": metric, "direction": direction}
        | {"value": value, "low": value - 0.1, "high": value + 0.1}
        for name, value in found.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("direction", "order"),
    [("higher", ["evidence", "edges", "grad_cam"]), ("lower", ["grad_cam", "edges", "evidence"])],
)
def test_the_best_comes_first_and_what_has_no_value_is_left_out(direction: str, order: list[str]) -> None:
    assert list(rank_methods(_rows("gini", direction))["method"]) == order


def test_figure_has_a_dot_and_an_interval_per_method() -> None:
    axes = ranking_figure(_rows("gini", "higher"), reference="evidence").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SoftCAM evidence", "Edge detector", "Grad-CAM"]
    assert to_hex(axes.get_yticklabels()[0].get_color()) == PALETTE["softcam"].light
    assert axes.get_xlabel() == "Sparseness (higher is better)"
    bottom, top = axes.get_ylim()
    assert bottom > top
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in dots] == [(0.5, 0), (0.3, 1), (0.2, 2)]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in dotted] == [0.5]


def test_thirty_methods_make_a_higher_figure(big_result: EvaluationResult) -> None:
    rows = big_result.benchmark[big_result.benchmark["metric"] == "gini"]
    assert ranking_figure(rows).get_figheight() > 2 * ranking_figure(rows[:3]).get_figheight()


def test_description_and_labels() -> None:
    text = describe_ranking(_rows("gini", "lower"))
    assert text == "Sparseness, the best first: Grad-CAM 0.200; Edge detector 0.300; SoftCAM evidence 0.500."
    assert shorten("Grad-CAM") == "Grad-CAM"
    assert shorten("Grad-CAM at features.denseblock3.denselayer24.conv2").endswith("er24.conv2")
