from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from softcam.metrics import ThresholdRule, choose_threshold

SAMPLES = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=30)


def rates(scores: np.ndarray, flags: np.ndarray, threshold: float) -> tuple[float, float, float]:
    """Return sensitivity, specificity and F1 score, counted one by one."""
    called = scores >= threshold
    true, false = int((called & flags).sum()), int((called & ~flags).sum())
    return true / flags.sum(), 1 - false / (~flags).sum(), 2 * true / (2 * true + false + int((~called & flags).sum()))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("youden", 0.35), ("f1", 0.35), ("sensitivity=0.5", 0.75), ("sensitivity=0.6", 0.55), ("specificity=1", 0.75)],
)
def test_values_by_hand(rule: str, expected: float) -> None:
    scores, flags = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], [0, 0, 0, 1, 0, 1, 0, 1, 1]
    assert choose_threshold(scores, flags, ThresholdRule.parse(rule)) == pytest.approx(expected)


@given(SAMPLES, st.sampled_from([0.3, 0.5, 0.8, 0.95, 1.0]))
def test_every_rule_finds_the_best_of_all_thresholds(samples: list[tuple[int, bool]], least: float) -> None:
    scores, flags = np.array([score for score, _ in samples]) / 12, np.array([flag for _, flag in samples])
    assume(0 < flags.sum() < len(flags))
    every = [rates(scores, flags, value) for value in np.unique(scores)]

    def found(rule: str) -> tuple[float, float, float]:
        return rates(scores, flags, choose_threshold(scores, flags.astype(int), ThresholdRule.parse(rule)))

    assert sum(found("youden")[:2]) == pytest.approx(max(sum(each[:2]) for each in every))
    assert found("f1")[2] == pytest.approx(max(each[2] for each in every))
    sensitivity, specificity, _ = found(f"sensitivity={least}")
    assert sensitivity >= least - 1e-9
    assert specificity == pytest.approx(max(each[1] for each in every if each[0] >= least - 1e-9))
    reaching = [each for each in every if each[1] >= least - 1e-9]
    if reaching:
        sensitivity, specificity, _ = found(f"specificity={least}")
        assert specificity >= least - 1e-9
        assert sensitivity == pytest.approx(max(each[0] for each in reaching))
    else:
        with pytest.raises(ValueError, match="specificity of at least"):
            found(f"specificity={least}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("best", "a rule among youden, f1, sensitivity, specificity, but got 'best'"),
        ("sensitivity", "Expected sensitivity=<share"),
        ("sensitivity=0", "but got 0.0"),
        ("specificity=1.01", "but got 1.01"),
        ("specificity=much", "Rules are youden"),
        ("f1=0.5", "no number for the rule f1"),
    ],
)
def test_refuses_other_rules(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ThresholdRule.parse(text)


@pytest.mark.parametrize("text", ["youden", "f1", "sensitivity=0.9", "specificity=0.95"])
def test_rules_are_read_as_they_are_written(text: str) -> None:
    assert str(ThresholdRule.parse(text)) == text
