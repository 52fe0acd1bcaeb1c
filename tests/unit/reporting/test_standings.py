from __future__ import annotations

from typing import Any

import pandas as pd

from softcam.evaluation import EvaluationResult
from softcam.reporting.standings import list_standings

BENCHMARK = pd.DataFrame(
    {"metric": ["gini", "deletion_area_mean", "entropy"], "direction": ["higher", "lower", "lower"]}
)
NAN = float("nan")


def _row(method: str, low: float, high: float, metric: str = "gini", p: float = 0.01) -> dict[str, Any]:
    return {"metric": metric, "method": method, "against": "evidence", "low": low, "high": high, "p_holm": p}


def test_counts_and_names_who_is_better() -> None:
    rows = [
        _row("grad_cam", 0.1, 0.2),
        _row("layer_cam@a.b", 0.1, 0.2),
        _row("rise", -0.2, -0.1),
        _row("occlusion", -0.1, 0.2),
        _row("deep_lift", 0.1, 0.2, p=0.2),
        _row("random", NAN, NAN, p=NAN),
        _row("edges", -0.2, -0.1, metric="entropy"),
    ]
    (standing,) = list_standings(BENCHMARK, rows)
    assert (standing.better, standing.worse, standing.undecided, standing.missing, standing.total) == (1, 2, 2, 1, 6)
    assert standing.sentence == (
        "Better than 1 of 6 other methods, worse than 2 (Grad-CAM, LayerCAM at a.b), undecided against 2; "
        "no common images with 1."
    )


def test_lower_is_better_turns_the_sides() -> None:
    (standing,) = list_standings(BENCHMARK, [_row("grad_cam", 0.1, 0.2, metric="deletion_area_mean")])
    assert (standing.better, standing.worse) == (1, 0)
    assert standing.sentence == "Better than 1 of 1 other method, worse than none."
    (standing,) = list_standings(BENCHMARK, [_row("grad_cam", -0.2, -0.1, metric="deletion_area_mean")])
    assert standing.sentence == "Better than none of 1 other method, worse than 1 (Grad-CAM)."


def test_a_difference_that_shows_nothing_is_claimed_by_neither() -> None:
    (standing,) = list_standings(BENCHMARK, [_row("grad_cam", -0.1, 0.4, p=0.001)])
    assert standing.sentence == "Better than none of 1 other method, worse than none, undecided against 1."


def test_many_names_are_cut_and_said_to_be() -> None:
    (standing,) = list_standings(BENCHMARK, [_row(f"m{index}", 0.1, 0.2) for index in range(11)])
    assert "m7, and 3 more, marked ▲ in the tables)" in standing.sentence
    assert "m8" not in standing.sentence


def test_only_comparisons_with_the_reference_count() -> None:
    rows = [_row("grad_cam", 0.1, 0.2), _row("rise", 0.1, 0.2) | {"against": "grad_cam"}]
    (standing,) = list_standings(BENCHMARK, rows)
    assert standing.total == 1


def test_without_comparisons_or_values_nothing_is_said(result: EvaluationResult) -> None:
    assert list_standings(result.benchmark, ()) == ()
    assert list_standings(BENCHMARK, [_row("random", NAN, NAN)]) == ()
    assert list_standings(BENCHMARK, [_row("edges", -0.2, -0.1, metric="entropy")]) == ()


def test_big_result(big_result: EvaluationResult) -> None:
    standings = list_standings(big_result.benchmark, big_result.metrics["comparisons"])
    assert [(standing.better, standing.worse) for standing in standings] == [
        *((29, 0), (29, 0), (29, 0), (0, 29), (29, 0), (29, 0))
    ]
