from __future__ import annotations

import pandas as pd
import pytest

from softcam.evaluation import EvaluationResult
from softcam.reporting.perturbation import MOST, choose_methods, method_styles, perturbation_figure, rank_post_hoc


def _curves(heights: dict[str, tuple[float, float]]) -> pd.DataFrame:
    rows = [
        {"method": method, "curve": curve, "probability": height}
        for method, pair in heights.items()
        for curve, height in zip(("deletion", "insertion"), pair, strict=True)
    ]
    return pd.DataFrame(rows)


def test_few_methods_are_all_drawn(result: EvaluationResult) -> None:
    assert choose_methods(result.curves) == ("evidence", "grad_cam", "random")


def test_of_many_methods_a_few_are_drawn_in_colour(big_result: EvaluationResult) -> None:
    chosen = choose_methods(big_result.curves)
    assert len(chosen) == MOST
    assert chosen[:3] == ("evidence", "evidence:sparse", "evidence:<i>stride</i> 8")
    # The lowest deletion curve is the first post-hoc method's, the highest insertion curve the last one's.
    assert chosen[3:] == ("grad_cam", "hires_cam@blocks.2", "layer_cam", "layer_cam@blocks.2", "random")


def test_post_hoc_methods_are_ranked_by_both_curves_in_turn() -> None:
    heights = {"evidence": (0.1, 0.9), "random": (0.0, 1.0), "grad_cam": (0.5, 0.8)}
    curves = _curves(heights | {"rise": (0.2, 0.3), "occlusion": (0.3, 0.4)})
    assert rank_post_hoc(curves) == ["rise", "grad_cam", "occlusion"]


@pytest.mark.parametrize("curve", ["deletion", "insertion"])
def test_the_rest_is_grey_and_counted(big_result: EvaluationResult, curve: str) -> None:
    figure = perturbation_figure(big_result.curves, curve)  # type: ignore[arg-type]
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "fill: noisy linear"
    assert len(axes.lines) == 30
    assert len([line for line in axes.lines if line.get_alpha() == 0.4]) == 22
    # Only the evidence has a band.
    assert len(axes.collections) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == 9
    assert labels[0] == "SoftCAM evidence"
    assert labels[-1] == "22 other methods"


def test_styles_differ_among_those_drawn(big_result: EvaluationResult) -> None:
    chosen = choose_methods(big_result.curves)
    styles = method_styles(chosen)
    assert list(styles) == list(chosen)
    assert len(set(styles.values())) == len(chosen)
    assert styles["evidence"] == ("softcam", "-")
    assert {styles[name][0] for name in chosen[:3]} == {"softcam"}
    assert styles["random"][0] == "random"
