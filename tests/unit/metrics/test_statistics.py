from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from scipy import stats

from softcam.metrics import weighted
from softcam.metrics.inputs import Array
from softcam.metrics.statistics import (
    Interval,
    bootstrap_interval,
    bootstrap_statistics,
    delong,
    draw_weights,
    holm,
    noninferiority,
    paired_bootstrap,
)

NAN = float("nan")
VALUES = np.random.default_rng(0).normal(size=40)


def make_scores(images: int = 60, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    target = (rng.random(images) < 0.4).astype(float)
    a = np.round(target + rng.normal(size=images), 1)  # rounded: with ties
    return target, a, np.round(0.5 * target + 0.5 * a + rng.normal(size=images), 1)


def slow_delong(target: Array, a: Array, b: Array) -> tuple[float, float, float]:
    """AUROCs and the standard error of their difference from all pairs, as in the paper."""

    def kernel(scores: Array) -> Array:
        high, low = scores[target == 1][:, None], scores[target == 0][None]
        return (high > low) + 0.5 * (high == low)

    psi_a, psi_b = kernel(a), kernel(b)
    s10 = np.cov(psi_a.mean(1), psi_b.mean(1))
    s01 = np.cov(psi_a.mean(0), psi_b.mean(0))
    s = s10 / psi_a.shape[0] + s01 / psi_a.shape[1]
    return float(psi_a.mean()), float(psi_b.mean()), math.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])


def test_weights_draw_whole_groups_and_keep_their_number() -> None:
    groups = np.array([0, 1, 1, 2])
    weights = np.concatenate(list(draw_weights(groups, resamples=300, seed=1)))
    assert weights.shape == (300, 4)
    np.testing.assert_array_equal(weights[:, 1], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(1), 3)
    assert weights.mean() == pytest.approx(1, abs=0.1)


def test_weights_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softcam.metrics.statistics._BLOCK", 12)
    blocks = list(draw_weights(np.arange(4), resamples=7, seed=0))
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert not np.array_equal(blocks[0], blocks[1])


def test_global_random_states_are_untouched() -> None:
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    bootstrap_interval(VALUES, resamples=10)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002


def test_interval_agrees_with_theory_and_with_scipy() -> None:
    pytest.importorskip("scipy", minversion="1.15", reason="older ones name the generator otherwise")
    interval = bootstrap_interval(torch.from_numpy(VALUES))
    half = 1.96 * VALUES.std() / math.sqrt(len(VALUES))
    assert interval.value == pytest.approx(VALUES.mean())
    assert interval.low == pytest.approx(VALUES.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(VALUES.mean() + half, abs=0.03)
    peer = stats.bootstrap((VALUES,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    assert interval.low == pytest.approx(peer.low, abs=0.02)
    assert interval.high == pytest.approx(peer.high, abs=0.02)


def test_interval_of_patients_equals_that_of_their_images_when_copied() -> None:
    # Every patient has three equal images: three times the images carry no more information.
    single = bootstrap_interval(VALUES, resamples=500)
    copied = bootstrap_interval(np.repeat(VALUES, 3), groups=np.repeat(np.arange(40), 3), resamples=500)
    assert copied[:3] == pytest.approx(single[:3])
    assert copied.n == 120
    naive = bootstrap_interval(np.repeat(VALUES, 3), resamples=500)
    assert naive.high - naive.low < 0.7 * (single.high - single.low)


def test_interval_weighs_images_not_patients() -> None:
    assert bootstrap_interval([0.0, 0.0, 0.0, 1.0], groups="aaab", resamples=50).value == 0.25  # type: ignore[arg-type]


def test_each_argument_of_the_interval_matters() -> None:
    base = bootstrap_interval(VALUES, resamples=100)
    assert bootstrap_interval(VALUES, resamples=100) == base
    assert bootstrap_interval(VALUES, resamples=100, seed=1) != base
    assert bootstrap_interval(VALUES, resamples=101) != base
    wide = bootstrap_interval(VALUES, resamples=100, confidence=0.99)
    assert wide.low < base.low < base.high < wide.high


def test_nan_values_are_left_out_and_counted() -> None:
    with_nan = bootstrap_interval([*VALUES, NAN, NAN], groups=[*range(40), 40, 0], resamples=100)
    assert with_nan == bootstrap_interval(VALUES, resamples=100)
    assert with_nan.n == 40


def test_undefined_intervals_are_nan() -> None:
    assert [bootstrap_interval([NAN], resamples=5)[i] for i in (0, 1, 2)] == pytest.approx([NAN] * 3, nan_ok=True)
    assert bootstrap_interval([NAN], resamples=5).n == 0
    one_patient = bootstrap_interval([1.0, 2.0], groups=[7, 7], resamples=5)
    assert one_patient == pytest.approx(Interval(1.5, NAN, NAN, 2), nan_ok=True)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.1, NAN])
def test_confidence_out_of_range(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `confidence` to lie in \(0, 1\)"):
        bootstrap_interval(VALUES, confidence=confidence, resamples=5)


def test_resamples_out_of_range() -> None:
    with pytest.raises(ValueError, match="Expected `resamples` to be at least 1, but got 0"):
        bootstrap_interval(VALUES, resamples=0)


def test_statistics_share_resamples_and_skip_undefined_ones() -> None:
    def twice(weights: Array) -> Array:
        mean = weights @ VALUES / weights.sum(1)
        holes = np.where(weights[:, 0] > 1, NAN, mean)
        return np.stack([mean, 2 * mean, holes], axis=1)

    once, double, holes = bootstrap_statistics(twice, np.arange(40), resamples=200)
    assert double[:3] == pytest.approx([2 * x for x in once[:3]])
    assert holes.value == once.value
    assert math.isfinite(holes.low)
    assert holes.low != once.low


def test_auroc_of_700_images_takes_seconds_only() -> None:
    target, a, _ = make_scores(700)
    started = time.process_time()
    interval = bootstrap_statistics(lambda w: weighted.auroc(a, target == 1, w)[:, None], np.arange(700))[0]
    assert time.process_time() - started < 5
    assert interval.low < interval.value < interval.high


def test_paired_difference_by_hand() -> None:
    a, b = VALUES + 1, VALUES + np.linspace(0, 1, 40)
    paired = paired_bootstrap(a, b, resamples=2000)
    assert paired.value == pytest.approx(0.5)
    assert paired[:4] == pytest.approx(bootstrap_interval(a - b, resamples=2000))
    assert paired.p_value == pytest.approx(2 / 2001)
    assert paired_bootstrap(b, a, resamples=2000).value == pytest.approx(-0.5)


def test_paired_p_value_agrees_with_a_t_test() -> None:
    b = VALUES - np.random.default_rng(1).normal(0.3, 1, 40)
    p_value = paired_bootstrap(VALUES, b).p_value
    assert p_value == pytest.approx(stats.ttest_rel(VALUES, b).pvalue, abs=0.04)
    assert 0.001 < p_value < 0.5


def test_two_groups_are_enough_for_a_paired_p_value() -> None:
    assert 0 < paired_bootstrap([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], groups=[0, 0, 1], resamples=50).p_value <= 1


def test_paired_equal_values_have_p_value_one() -> None:
    assert paired_bootstrap(VALUES, VALUES, resamples=10)[:5] == (0.0, 0.0, 0.0, 40, 1.0)


def test_each_argument_of_the_pair_matters() -> None:
    b = np.zeros(40)
    base = paired_bootstrap(VALUES, b, resamples=100)
    assert paired_bootstrap(VALUES, b, resamples=100, seed=1) != base
    assert paired_bootstrap(VALUES, b, resamples=101) != base
    assert paired_bootstrap(VALUES, b, resamples=100, confidence=0.5) != base
    assert paired_bootstrap(VALUES, b, resamples=100, groups=np.arange(40) // 2) != base
    assert paired_bootstrap(VALUES, b + 1, resamples=100) != base


def test_pairs_with_nan_are_left_out() -> None:
    a, b = [1.0, NAN, 3.0, 4.0], [0.0, 0.0, NAN, 1.0]
    paired = paired_bootstrap(a, b, resamples=50)
    assert (paired.value, paired.n) == (2.0, 2)
    nothing = paired_bootstrap([NAN], [1.0], resamples=50)
    assert nothing.n == 0
    assert math.isnan(nothing.p_value)
    assert math.isnan(paired_bootstrap([1.0, 2.0], [0.0, 0.0], groups=[0, 0], resamples=50).p_value)


def test_pairs_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected `b` to be of shape \(2,\), but got \(1,\)"):
        paired_bootstrap([1.0, 2.0], [1.0])


@pytest.mark.parametrize("seed", range(4))
def test_delong_equals_the_paper_over_all_pairs(seed: int) -> None:
    target, a, b = make_scores(seed=seed)
    auroc_a, auroc_b, error = slow_delong(target, a, b)
    result = delong(target, a, b)
    assert result.auroc_a == pytest.approx(auroc_a, abs=1e-14)
    assert result.auroc_b == pytest.approx(auroc_b, abs=1e-14)
    assert result.difference == pytest.approx(auroc_a - auroc_b, abs=1e-14)
    assert result.standard_error == pytest.approx(error, abs=1e-13)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(auroc_a - auroc_b) / error))
    assert result.n == 60


def test_delong_agrees_with_the_bootstrap() -> None:
    target, a, b = make_scores(400)

    def difference(weights: Array) -> Array:
        positive = target == 1
        return (weighted.auroc(a, positive, weights) - weighted.auroc(b, positive, weights))[:, None]

    interval = bootstrap_statistics(difference, np.arange(400), resamples=4000)[0]
    result = delong(target, a, b)
    assert interval.value == pytest.approx(result.difference)
    assert (interval.high - interval.low) / (2 * 1.96) == pytest.approx(result.standard_error, rel=0.06)


def test_delong_with_a_group_for_each_image_is_the_paper() -> None:
    target, a, b = make_scores()
    assert delong(target, a, b, groups=np.arange(60)) == delong(target, a, b)


def test_delong_of_patients_agrees_with_their_bootstrap() -> None:
    rng = np.random.default_rng(7)
    patient = np.repeat(np.arange(150), 4)
    shared = rng.normal(size=150)[patient]  # what a patient's images have in common
    target = (rng.random(600) < 0.5).astype(float)
    a, b = target + shared + rng.normal(size=600), 0.6 * target + rng.normal(size=600)

    def difference(weights: Array) -> Array:
        positive = target == 1
        return (weighted.auroc(a, positive, weights) - weighted.auroc(b, positive, weights))[:, None]

    interval = bootstrap_statistics(difference, patient, resamples=3000)[0]
    clustered = delong(target, a, b, groups=patient).standard_error
    assert clustered == pytest.approx((interval.high - interval.low) / (2 * 1.96), rel=0.06)
    assert clustered != pytest.approx(delong(target, a, b).standard_error, rel=0.02)


def test_delong_of_copied_images_equals_obuchowski_by_hand() -> None:
    # Each patient has two equal images of one class: the estimate must not gain from the copies.
    target, a, b = make_scores()
    single = delong(target, a, b)
    copied = delong(*(np.repeat(x, 2) for x in (target, a, b)), groups=np.repeat(np.arange(60), 2))
    assert copied.standard_error == pytest.approx(single.standard_error)
    assert copied.difference == pytest.approx(single.difference)


def test_delong_undefined_cases() -> None:
    one_class = delong([1, 1], [0.1, 0.2], [0.3, 0.4])
    assert [math.isnan(x) for x in one_class] == [True] * 5 + [False]
    lonely = delong([1, 0, 0], [0.5, 0.1, 0.9], [0.1, 0.5, 0.9])
    assert (lonely.auroc_a, lonely.auroc_b) == (0.5, 0.0)
    assert math.isnan(lonely.standard_error)
    assert math.isnan(lonely.p_value)
    same = delong([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4])
    assert (same.difference, same.standard_error, same.p_value) == (0.0, 0.0, 1.0)
    opposite = delong([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert (opposite.difference, opposite.standard_error) == (1.0, 0.0)
    assert math.isnan(opposite.p_value)


def test_delong_refuses_other_input() -> None:
    with pytest.raises(ValueError, match="Expected `target` to be 0 or 1"):
        delong([0, 2], [0.1, 0.2], [0.1, 0.2])
    with pytest.raises(ValueError, match="Expected `score_b` to be of shape"):
        delong([0, 1], [0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="Expected `score_a` to be finite"):
        delong([0, 1], [0.1, NAN], [0.1, 0.2])


def test_noninferiority_is_the_lower_bound_against_the_margin() -> None:
    target, a, b = make_scores(300)
    result, reference = noninferiority(target, b, a), delong(target, b, a)
    bound = reference.difference - 1.959963984540054 * reference.standard_error
    assert result.difference == reference.difference
    assert result.low == pytest.approx(bound)
    assert (result.margin, result.passed, result.n) == (0.02, False, 300)
    assert noninferiority(target, b, a, margin=-bound + 1e-6).passed
    assert not noninferiority(target, b, a, margin=-bound - 1e-6).passed
    assert noninferiority(target, a, b).difference == -result.difference
    assert noninferiority(target, a, b).low > bound
    assert noninferiority(target, b, a, groups=np.arange(300) // 3).low != result.low


def test_noninferiority_never_passes_undefined() -> None:
    result = noninferiority([1, 1], [0.1, 0.2], [0.1, 0.2])
    assert math.isnan(result.low)
    assert result.passed is False


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.02, NAN])
def test_noninferiority_margin_out_of_range(margin: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `margin` to lie in \(0, 1\)"):
        noninferiority([0, 1], [0.1, 0.2], [0.1, 0.2], margin=margin)


def test_holm_by_hand() -> None:
    # 4 * .005, 3 * .01, then 2 * .03 and 1 * .04 lifted to it.
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([0.04]).tolist() == [0.04]


def test_holm_leaves_nan_out_of_the_family() -> None:
    assert holm([NAN, 0.02, 0.03]).tolist() == pytest.approx([NAN, 0.04, 0.04], nan_ok=True)


@pytest.mark.parametrize("bad", [-0.01, 1.01])
def test_holm_refuses_what_is_no_probability(bad: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `p_values` to lie in \[0, 1\]"):
        holm([0.5, bad])
