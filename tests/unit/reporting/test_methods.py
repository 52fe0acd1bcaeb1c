from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from softcam.evaluation import EvaluationResult
from softcam.reporting.methods import MethodCell, MethodTable, method_tables, shown_better


def _difference(method: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"metric": "gini", "method": method, "against": "evidence", "low": low, "high": high, **more}


def _column(table: MethodTable | None, title: str) -> list[MethodCell]:
    assert table is not None
    place = [column.measure.title for column in table.columns].index(title)
    cells = [row.cells[place] for group in table.groups for row in group.rows]
    return [cell for cell in cells if cell is not None]


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


def test_summary_holds_the_measures_that_decide_and_families_the_rest(big_result: EvaluationResult) -> None:
    tables = method_tables(big_result.benchmark, big_result.metrics["comparisons"])
    assert tables.methods == 30
    assert tables.reference == "SoftCAM evidence"
    assert tables.summary is not None
    assert [column.measure.title for column in tables.summary.columns] == [
        *("Pointing game", "Activation precision", "Top-3 patches", "Deletion, mean", "Insertion, mean", "Sparseness")
    ]
    assert [(table.title, len(table.columns)) for table in tables.families] == [
        *(("Localisation", 8), ("Faithfulness, 1 of 2", 9), ("Faithfulness, 2 of 2", 7)),
        *(("Robustness", 4), ("Consistency", 1), ("Complexity", 4)),
    ]
    assert tables.valueless == ("Confidence increase",)


def test_methods_are_grouped_by_whose_map_it_is_and_where(big_result: EvaluationResult) -> None:
    summary = method_tables(big_result.benchmark).summary
    assert summary is not None
    assert [(group.label, len(group.rows)) for group in summary.groups] == [
        ("SoftCAM's own maps", 5),
        ("Post-hoc methods, of the black box", 16),
        ("Post-hoc methods, of the black box, at blocks.1", 3),
        ("Post-hoc methods, of the black box, at blocks.2", 3),
        ("Floors, which know nothing of the model", 3),
    ]
    assert [row.title for row in summary.groups[0].rows] == [
        *("SoftCAM evidence", "SoftCAM margin", "SoftCAM evidence (sparse)", "SoftCAM margin (sparse)"),
        "SoftCAM evidence (<i>stride</i> 8)",
    ]
    assert summary.groups[2].rows[0].title == "Grad-CAM at blocks.1"


def test_without_the_new_columns_places_come_from_names(big_result: EvaluationResult) -> None:
    summary = method_tables(big_result.benchmark.drop(columns=["model", "layer"])).summary
    assert summary is not None
    assert [group.label for group in summary.groups][1:4] == [
        *("Post-hoc methods", "Post-hoc methods, at blocks.1", "Post-hoc methods, at blocks.2")
    ]


def test_cells_say_undefined_only_where_it_is_not_the_column_s(result: EvaluationResult) -> None:
    tables = method_tables(result.benchmark.assign(undefined=[7, 7, 2, 0, 1, 2]))
    assert tables.summary is not None
    assert tables.summary.columns[0].undefined == 7
    assert [cell.undefined for cell in _column(tables.summary, "Deletion, mean")] == [None, None, 2]
    assert [(row.title, row.n) for group in tables.summary.groups for row in group.rows] == [
        *(("SoftCAM evidence", None), ("Grad-CAM", 19), ("Random map", 18))
    ]
    assert tables.summary.n == 20
    assert [cell.value for cell in _column(tables.summary, "Deletion, mean")] == ["0.600", "0.500", "0.400"]
    assert tables.reference == ""
    assert not any(cell.best or cell.versus for cell in _column(tables.summary, "Sparseness"))


def test_strips_lie_on_the_axis_of_their_column(result: EvaluationResult) -> None:
    summary = method_tables(result.benchmark, [_difference("grad_cam", -0.2, -0.1)]).summary
    first, second, _ = (cell.strip for cell in _column(summary, "Deletion, mean"))
    assert summary is not None
    assert summary.columns[0].axis == pytest.approx((0.38, 0.62))
    assert first is not None
    assert second is not None
    assert (first.low, first.value, first.high) == pytest.approx((100 * 0.2 / 0.24, 100 * 0.22 / 0.24, 100))
    assert first.reference == second.reference == first.value


def test_best_only_where_better_than_every_other_method(result: EvaluationResult) -> None:
    both = [_difference("grad_cam", -0.2, -0.1), _difference("random", -0.3, -0.2)]
    cells = _column(method_tables(result.benchmark, both).summary, "Sparseness")
    assert [cell.best for cell in cells] == [True, False, False]
    assert [cell.versus for cell in cells] == ["", "worse", "worse"]
    one = [both[0], _difference("random", -0.3, 0.2)]
    assert not any(cell.best for cell in _column(method_tables(result.benchmark, one).summary, "Sparseness"))
    # A peer that beats the reference has not been compared with the other peers.
    peer = [_difference("grad_cam", 0.1, 0.2), both[1]]
    cells = _column(method_tables(result.benchmark, peer).summary, "Sparseness")
    assert [(cell.best, cell.versus) for cell in cells] == [(False, ""), (False, "better"), (False, "worse")]


def test_a_method_without_a_value_is_no_rival(result: EvaluationResult) -> None:
    benchmark = result.benchmark.copy()
    benchmark.loc[benchmark["method"] == "random", ["value", "low", "high"]] = float("nan")
    cells = _column(method_tables(benchmark, [_difference("grad_cam", -0.2, -0.1)]).summary, "Sparseness")
    assert cells[0].best
    assert (cells[2].value, cells[2].interval, cells[2].strip) == ("–", "", None)  # noqa: RUF001 - a missing value


def test_missing_cells_missing_intervals_and_nothing_at_all(result: EvaluationResult) -> None:
    benchmark = result.benchmark.drop(index=[1]).astype({"low": float})
    benchmark.loc[0, "low"] = float("nan")
    summary = method_tables(benchmark).summary
    assert summary is not None
    assert [row.cells[0] is None for group in summary.groups for row in group.rows] == [False, True, False]
    assert _column(summary, "Deletion, mean")[0].interval == ""
    for empty in (pd.DataFrame(columns=list(benchmark.columns)), pd.DataFrame()):
        tables = method_tables(empty)
        assert (tables.summary, tables.families, tables.methods) == (None, (), 0)


def test_one_method_alone_is_no_best(result: EvaluationResult) -> None:
    alone = result.benchmark[result.benchmark["method"] == "evidence"]
    summary = method_tables(alone).summary
    assert not any(cell.best for cell in _column(summary, "Sparseness"))
    assert [cell.strip.value for cell in _column(summary, "Sparseness") if cell.strip] == pytest.approx([50])


def test_unknown_measures_and_methods_are_kept(result: EvaluationResult) -> None:
    benchmark = result.benchmark.assign(metric="my_own", method=["a_b", "c", "d"] * 2, direction="lower")
    (table,) = method_tables(benchmark).families
    assert table.title == "Other"
    assert (table.columns[0].measure.title, table.columns[0].measure.direction) == ("my own", "lower")
    assert [row.title for group in table.groups for row in group.rows] == ["a b", "c", "d"]
