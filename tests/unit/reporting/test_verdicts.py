from __future__ import annotations

from typing import Any

import pytest

from softcam.evaluation import EvaluationResult
from softcam.reporting.verdicts import accuracy_verdict, identity_verdict, noninferiority_verdict, verdicts

TEST = {"metric": "auroc", "difference": -0.003, "low": -0.011, "margin": 0.02, "passed": True, "n": 40}


def test_accuracy_counts_the_diagonal_of_the_confusion() -> None:
    found = {"accuracy": {"value": 0.85, "low": 0.8, "high": 0.9, "n": 40}}
    verdict = accuracy_verdict(found, [[18, 2], [4, 16]])
    assert verdict is not None
    assert verdict.sentence.startswith("34 of 40 test images were classified correctly")
    assert "AUROC" not in verdict.sentence
    ranked = accuracy_verdict(found | {"auroc": {"value": 0.9, "low": 0.8, "high": 0.95}})
    assert ranked is not None
    assert "AUROC of 0.900" in ranked.sentence
    assert ranked.sentence.startswith("34 of 40")


def test_noninferiority_says_what_the_bound_allows() -> None:
    verdict = noninferiority_verdict(TEST)
    assert verdict is not None
    assert verdict.state == "held"
    assert "at most 0.011 below that of the black box" in verdict.sentence
    assert "less than 0.020 was accepted beforehand" in verdict.sentence


def test_a_bound_above_zero_is_a_gain() -> None:
    verdict = noninferiority_verdict(TEST | {"low": 0.004})
    assert verdict is not None
    assert "at least 0.004 above" in verdict.sentence


def test_a_failed_test_is_open_and_no_proof_of_loss() -> None:
    verdict = noninferiority_verdict(TEST | {"low": -0.034, "passed": False})
    assert verdict is not None
    assert verdict.state == "open"
    assert "not shown" in verdict.sentence
    assert "0.034" in verdict.sentence
    assert "does not prove a loss" in verdict.sentence


@pytest.mark.parametrize(("error", "state"), [(1e-5, "held"), (1.01e-5, "broken"), (float("nan"), "broken")])
def test_identity_is_judged_by_its_tolerance(error: float, state: str) -> None:
    verdict = identity_verdict({"max_relative_error": error, "n": 1200, "tolerance": 1e-5})
    assert verdict is not None
    assert verdict.state == state
    assert "1,200 predictions" in verdict.sentence


def test_what_was_not_measured_is_not_claimed(result: EvaluationResult, bare_result: EvaluationResult) -> None:
    assert [verdict.label for verdict in verdicts(result.metrics)] == [
        "Accuracy",
        "Against the black box",
        "Exactness of the sum",
    ]
    assert [verdict.label for verdict in verdicts(bare_result.metrics)] == ["Accuracy", "Exactness of the sum"]
    nothing: dict[str, Any] = {"classification": {}}
    assert verdicts(nothing) == ()
