from __future__ import annotations

from collections.abc import Callable

from softcam.evaluation import EvaluationResult
from softcam.reporting.models import model_table
from softcam.reporting.wording import MINUS


def test_one_model_needs_no_table(result: EvaluationResult) -> None:
    assert model_table(result.metrics) is None
    assert model_table(result.metrics | {"others": {}}) is None


def test_models_stand_beside_each_other(big_result: EvaluationResult) -> None:
    table = model_table(big_result.metrics)
    assert table is not None
    assert [row.title for row in table.rows] == ["SoftCAM", "black box", "sparse", "<i>stride</i> 8"]
    assert [column.title for column in table.scores] == ["AUROC", "Accuracy"]
    assert [column.title for column in table.consistency] == ["Positive cells", "Negative cells"]
    ours, theirs, sparse, _ = table.rows
    assert theirs.scores[0].startswith("0.860")
    assert (theirs.difference, theirs.verdict, theirs.error) == ("", "", "")
    assert theirs.consistency[0] == "–"  # noqa: RUF001 - a missing value
    assert ours.difference == f"{MINUS}0.010 (bound {MINUS}0.015)"
    assert (ours.verdict, sparse.verdict) == ("not inferior", "not shown")
    assert ours.error.startswith("2.1")
    assert sparse.error.startswith("3.0")
    assert sparse.consistency[0].startswith("0.700")


def test_a_model_may_be_called_anything_and_lack_its_test(make_result: Callable[..., EvaluationResult]) -> None:
    other = {"classification": {}, "noninferiority": None, "consistency": {}, "max_relative_error": 1e-7}
    table = model_table(make_result(others={"SoftCAM": other, "black box": other}, black_box=None).metrics)
    assert table is not None
    assert [row.title for row in table.rows] == ["SoftCAM", "SoftCAM", "black box"]
    assert table.rows[1].difference == ""
    assert set(table.rows[1].scores) == {"–"}  # noqa: RUF001 - a missing value
