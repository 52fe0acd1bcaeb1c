from __future__ import annotations

import json

from softcam.evaluation import EvaluationResult
from softcam.reporting.summary import headline_rows, headline_sentences

NINE = {"value": 0.9, "low": 0.8514, "high": 0.9496, "n": 40}
FIVE = {"value": 0.5, "low": 0.45, "high": 0.55, "n": 40}


def test_rows_stand_in_the_order_of_the_headline() -> None:
    metrics = {"classification": {"ece": FIVE, "brier": FIVE, "auroc": NINE}, "black_box": {"auroc": FIVE}}
    assert headline_rows(metrics) == (
        ("AUROC", "0.900 (0.851–0.950)", "0.500 (0.450–0.550)"),  # noqa: RUF001 - the dash of an interval
        ("Calibration error", "0.500 (0.450–0.550)", ""),  # noqa: RUF001 - see above
    )


def test_without_a_black_box_its_column_is_empty() -> None:
    for metrics in ({"classification": {"accuracy": FIVE}}, {"classification": {"accuracy": FIVE}, "black_box": None}):
        assert [row[::2] for row in headline_rows(metrics)] == [("Accuracy", "")]


def test_sentences_say_what_was_decided(result: EvaluationResult, bare_result: EvaluationResult) -> None:
    accuracy, against, exact = headline_sentences(result.metrics)
    assert accuracy.startswith("34 of 40 test images were classified correctly")
    assert "at most 0.015 below that of the black box" in against
    assert "40 predictions were checked" in exact
    assert headline_sentences(bare_result.metrics) == (accuracy, exact)


def test_metrics_read_back_from_disk_give_the_same(result: EvaluationResult) -> None:
    stored = json.loads(json.dumps(result.metrics))
    assert headline_rows(stored) == headline_rows(result.metrics)
    assert headline_sentences(stored) == headline_sentences(result.metrics)
