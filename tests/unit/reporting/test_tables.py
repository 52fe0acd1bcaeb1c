from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from softcam.evaluation import EvaluationResult
from softcam.reporting.tables import confusion_rows, headline_groups, method_table, shown_better


def _interval(value: float, low: float, high: float, n: int = 10) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def test_headline_groups_by_direction_on_a_common_axis() -> None:
    softcam = {"brier": _interval(0.1, 0.05, 0.15), "auroc": _interval(0.8, 0.75, 0.85)}
    higher, lower = headline_groups(softcam, {"auroc": _interval(0.9, 0.88, 0.95, n=11)})
    assert (higher.direction, higher.axis) == ("higher", (0.7, 1.0))
    assert (lower.direction, lower.axis) == ("lower", (0.0, 0.2))
    assert [bar.key for bar in higher.rows[0].bars] == ["softcam", "black-box"]
    assert higher.rows[0].bars[0].value == pytest.approx(100 * (0.8 - 0.7) / 0.3)
    assert higher.rows[0].bars[0].low == pytest.approx(100 * 0.05 / 0.3)
    assert higher.rows[0].n.startswith("10")
    assert higher.rows[0].n.endswith("11")
    assert lower.rows[0].estimates[1] is None
    assert lower.rows[0].n == "10"


def test_headline_keeps_measures_of_any_name() -> None:
    (group,) = headline_groups({"zeta": _interval(0.5, 0.4, 0.6), "auroc": _interval(0.8, 0.7, 0.9)}, None)
    assert [row.measure.title for row in group.rows] == ["AUROC", "zeta"]


def test_an_interval_that_is_undefined_does_not_move_the_axis() -> None:
    nan = float("nan")
    (group,) = headline_groups({"auroc": _interval(nan, nan, nan), "accuracy": _interval(0.8, 0.75, 0.85)}, None)
    assert group.axis == (0.7, 1.0)
    assert group.rows[0].bars == ()


def test_confusion_shares_are_of_the_true_class() -> None:
    first, second = confusion_rows([[3, 1], [0, 0]], ["a", "b"])
    assert (first.label, first.counts, first.shares, first.total) == ("a", (3, 1), (0.75, 0.25), 4)
    assert second.shares == (0.0, 0.0)


def test_confusion_needs_a_name_for_each_row() -> None:
    with pytest.raises(ValueError, match="zip"):
        confusion_rows([[1, 0], [0, 1]], ["a"])


def _difference(method: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"metric": "gini", "method": method, "against": "evidence", "low": low, "high": high, **more}


@pytest.mark.parametrize(
    ("row", "higher", "expected"),
    [
        (_difference("a", 0.1, 0.2), True, {("a", "evidence")}),
        (_difference("a", 0.1, 0.2), False, {("evidence", "a")}),
        (_difference("a", -0.2, -0.1), True, {("evidence", "a")}),
        (_difference("a", -0.1, 0.2), True, set()),
        (_difference("a", 0.0, 0.2), True, set()),
        (_difference("a", 0.1, 0.2, p_holm=0.04), True, {("a", "evidence")}),
        (_difference("a", 0.1, 0.2, p_holm=0.05), True, set()),
        (_difference("a", 0.1, 0.2, p_holm=float("nan")), True, set()),
        (_difference("a", float("nan"), float("nan")), True, set()),
    ],
)
def test_shown_better_needs_interval_and_corrected_p(row: dict[str, Any], higher: bool, expected: set[Any]) -> None:
    assert shown_better("gini", [row], higher=higher) == expected
    assert shown_better("entropy", [row], higher=higher) == frozenset()


def test_method_table_pivots_and_counts(result: EvaluationResult) -> None:
    table = method_table(result.benchmark)
    assert [(column.title, column.n) for column in table.columns] == [
        ("SoftCAM evidence", 20),
        ("Grad-CAM", 19),
        ("Random map", 18),
    ]
    assert [row.measure.title for row in table.rows] == ["Deletion, mean", "Sparseness"]
    assert [cell.value for cell in table.rows[0].cells if cell] == ["0.600", "0.500", "0.400"]
    assert [cell.undefined for cell in table.rows[0].cells if cell] == [0, 1, 2]
    assert table.reference == ""
    assert not any(cell.best or cell.versus for row in table.rows for cell in row.cells if cell)


def test_best_only_where_better_than_every_other_method(result: EvaluationResult) -> None:
    both = [_difference("grad_cam", -0.2, -0.1), _difference("random", -0.3, -0.2)]
    row = method_table(result.benchmark, both).rows[1]
    assert [cell.best for cell in row.cells if cell] == [True, False, False]
    assert [cell.versus for cell in row.cells if cell] == ["", "worse", "worse"]
    one = [both[0], _difference("random", -0.3, 0.2)]
    row = method_table(result.benchmark, one).rows[1]
    assert not any(cell.best for cell in row.cells if cell)
    # A peer that beats the reference has not been compared with the other peers.
    row = method_table(result.benchmark, [_difference("grad_cam", 0.1, 0.2), both[1]]).rows[1]
    assert [(cell.best, cell.versus) for cell in row.cells if cell] == [
        (False, ""),
        (False, "better"),
        (False, "worse"),
    ]


def test_missing_cells_and_missing_intervals(result: EvaluationResult) -> None:
    benchmark = result.benchmark.drop(index=[1]).astype({"low": float})
    benchmark.loc[0, "low"] = float("nan")
    cells = method_table(benchmark).rows[0].cells
    assert cells[1] is None or cells[2] is None
    assert cells[0] is not None
    assert cells[0].interval == ""
    assert method_table(pd.DataFrame(columns=list(benchmark.columns))).rows == ()
