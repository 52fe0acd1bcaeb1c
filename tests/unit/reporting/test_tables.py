from __future__ import annotations

from typing import Any

import pytest

from softcam.reporting.tables import confusion_rows, headline_groups


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
