"""Intervals and tests: bootstrap over patients, DeLong's comparison of AUROCs, non-inferiority, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from softcam.metrics.inputs import Array, Values, check_binary, check_groups, check_positive, check_vector

# Resamples are drawn in blocks of about this many weights, so that memory stays flat and a block fits the cache.
_BLOCK = 2**20
_ONE_SIDED_CONFIDENCE = 0.975


class Interval(NamedTuple):
    """An estimate with its confidence interval; NaN where it is undefined.

    Args:
        value: The estimate on all images.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: How many images the estimate rests on; undefined ones are not among them.
    """

    value: float
    low: float
    high: float
    n: int


class PairedDifference(NamedTuple):
    """The mean of a - b over the same images, with its interval and a two-sided p-value.

    Args:
        value: Mean difference.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of images for which both values are defined.
        p_value: Probability of a difference at least this far from 0 in either direction if there were none.
    """

    value: float
    low: float
    high: float
    n: int
    p_value: float


class DeLong(NamedTuple):
    """Two AUROCs on the same images and the standard error of their difference.

    Args:
        auroc_a: AUROC of the first score.
        auroc_b: AUROC of the second score.
        difference: auroc_a - auroc_b.
        standard_error: Standard error of the difference.
        p_value: Two-sided, normal approximation.
        n: Number of images.
    """

    auroc_a: float
    auroc_b: float
    difference: float
    standard_error: float
    p_value: float
    n: int


class NonInferiority(NamedTuple):
    """Whether a new score is at most `margin` worse than an old one.

    Args:
        difference: AUROC of the new minus AUROC of the old score.
        low: Lower bound of the one-sided 97.5 % interval of the difference.
        margin: The largest loss that was declared acceptable beforehand.
        passed: Whether `low` lies above -margin; an undefined bound never passes.
        n: Number of images.
    """

    difference: float
    low: float
    margin: float
    passed: bool
    n: int


def draw_weights(groups: NDArray[np.intp], *, resamples: int, seed: int) -> Iterator[Array]:
    """Yield blocks of bootstrap weights: how often each image is in each resample of whole groups.

    Args:
        groups: (N,) group numbers from 0 without gaps.
        resamples: How many resamples in all.
        seed: Seed of a generator of its own; global random states are untouched.

    Yields:
        (R, N) float64, the R of all blocks summing to `resamples`.
    """
    generator = np.random.default_rng(seed)
    count = int(groups.max()) + 1
    block = max(1, _BLOCK // len(groups))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        tallies = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield tallies[:, groups].astype(np.float64)


def bootstrap_statistics(
    statistics: Callable[[Array], Array],
    groups: NDArray[np.intp],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[Interval, ...]:
    """Percentile bootstrap of any statistics that can be computed from image weights, all from the same resamples.

    Resamples in which a statistic is undefined are left out of its percentiles. With fewer than two groups there is
    nothing to resample and the bounds are NaN.

    Args:
        statistics: Maps weights (R, N) to values (R, M), NaN where undefined.
        groups: (N,) group numbers from 0 without gaps.
        confidence: Coverage of the two-sided interval, in (0, 1).
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        M intervals; `n` is N.

    Raises:
        ValueError: If `confidence` or `resamples` is out of range.
    """
    values = statistics(np.ones((1, len(groups))))[0]
    draws = _draw(statistics, groups, resamples=resamples, seed=seed)
    bounds = [_percentiles(column, groups, confidence) for column in draws.T]
    return tuple(Interval(float(v), *bound, len(groups)) for v, bound in zip(values, bounds, strict=True))


def bootstrap_interval(
    values: Values,
    *,
    groups: Values | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean over images with a percentile bootstrap interval over groups.

    Whole groups (patients) are drawn with replacement, so images of one patient are never taken for independent.
    NaN values are left out and `n` says how many images remain; the mean of none is NaN, and so are the bounds when
    fewer than two groups remain.

    Args:
        values: (N,) one number per image, NaN where undefined.
        groups: (N,) patient of each image; each image is its own group if left out.
        confidence: Coverage of the two-sided interval, in (0, 1).
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        The mean, its interval and the number of images it rests on.

    Raises:
        ValueError: If a shape is wrong, a group is missing, or `confidence` or `resamples` is out of range.

    >>> bootstrap_interval([1.0, 1.0, float("nan")])
    Interval(value=1.0, low=1.0, high=1.0, n=2)

    Reference: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3; Field & Welsh 2007 (clusters).
    """
    array = check_vector(values, "values", finite=False)
    kept, index = _keep_defined(array, groups)
    if kept.size == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = _mean_statistic(kept)
    return bootstrap_statistics(mean, index, confidence=confidence, resamples=resamples, seed=seed)[0]


def paired_bootstrap(
    a: Values,
    b: Values,
    *,
    groups: Values | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Mean difference a - b over the same images, bootstrapped over groups.

    Images where either value is NaN are left out. The two-sided p-value is twice the smaller share of resampled
    differences on either side of 0, each counted with one resample more so that it is never 0; at most 1.

    Args:
        a: (N,) values of one method.
        b: (N,) values of the other method on the same images.
        groups: (N,) patient of each image; each image is its own group if left out.
        confidence: Coverage of the two-sided interval, in (0, 1).
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        The difference, its interval, the number of pairs and the p-value; NaN where fewer than two groups remain.

    Raises:
        ValueError: If a shape is wrong, a group is missing, or `confidence` or `resamples` is out of range.

    Reference: Davison & Hinkley 1997, Bootstrap Methods and their Application, section 4.4.
    """
    first = check_vector(a, "a", finite=False)
    differences = first - check_vector(b, "b", size=first.size, finite=False)
    kept, index = _keep_defined(differences, groups)
    if kept.size == 0:
        return PairedDifference(np.nan, np.nan, np.nan, 0, np.nan)
    draws = _draw(_mean_statistic(kept), index, resamples=resamples, seed=seed)[:, 0]
    low, high = _percentiles(draws, index, confidence)
    tail = 1 + min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p_value = min(1.0, 2 * tail / (resamples + 1)) if index.max() > 0 else np.nan
    return PairedDifference(float(kept.mean()), low, high, kept.size, p_value)


def delong(target: Values, score_a: Values, score_b: Values, *, groups: Values | None = None) -> DeLong:
    """Compare the AUROCs of two scores on the same images.

    Ties count one half (midranks). With `groups` the components are summed by patient first, which widens the
    standard error where images of a patient agree. Two scores that separate the classes perfectly have a standard
    error of 0: the normal approximation knows no doubt there, so look at `n` as well.

    Args:
        target: (N,) 0 or 1.
        score_a: (N,) higher means more likely 1.
        score_b: (N,) the other score.
        groups: (N,) patient of each image; each image is its own group if left out.

    Returns:
        AUROCs in [0, 1], higher is better. AUROCs are NaN without both classes; the standard error and the p-value
        are NaN with fewer than two groups in a class, the p-value also for a difference without standard error.

    Raises:
        ValueError: If a shape is wrong, a value is not finite, a target is not 0 or 1, or a group is missing.

    >>> delong([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], [0.1, 0.2, 0.3, 0.4]).difference
    -0.25

    Reference: DeLong et al. 1988, Biometrics 44:837; Sun & Xu 2014, IEEE SPL 21:1389 (midranks);
    Obuchowski 1997, Biometrics 53:567 (patients).
    """
    first = check_vector(score_a, "score_a")
    second = check_vector(score_b, "score_b", size=first.size)
    positive = check_binary(target, "target", size=first.size)
    index = check_groups(groups, first.size)
    if positive.all() or not positive.any():
        return DeLong(np.nan, np.nan, np.nan, np.nan, np.nan, first.size)
    (a10, a01), (b10, b01) = _placements(positive, first), _placements(positive, second)
    difference = float(np.mean(a10 - b10))
    error = _standard_error(a10 - b10, a01 - b01, index[positive], index[~positive])
    return DeLong(float(a10.mean()), float(b10.mean()), difference, error, _two_sided(difference, error), first.size)


def noninferiority(
    target: Values, score_new: Values, score_old: Values, *, margin: float = 0.02, groups: Values | None = None
) -> NonInferiority:
    """Test that the AUROC of a new score is not worse than that of an old one by `margin` or more.

    Passed if the lower bound of the one-sided 97.5 % interval of the paired difference (DeLong) lies above -margin.

    Args:
        target: (N,) 0 or 1.
        score_new: (N,) score under test.
        score_old: (N,) score it is compared with, on the same images.
        margin: Largest acceptable loss in AUROC, in (0, 1), stated beforehand.
        groups: (N,) patient of each image; each image is its own group if left out.

    Returns:
        The difference (higher is better), its lower bound and the verdict; NaN and not passed where undefined.

    Raises:
        ValueError: If `margin` is out of range, or as `delong` does.

    >>> noninferiority([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]).passed
    True

    Reference: Liu et al. 2006, Statistics in Medicine 25:1219; ICH E9 for the one-sided 97.5 %.
    """
    if not 0 < margin < 1:
        raise ValueError(f"Expected `margin` to lie in (0, 1), but got {margin}. State a loss in AUROC such as 0.02.")
    result = delong(target, score_new, score_old, groups=groups)
    low = result.difference - float(stats.norm.ppf(_ONE_SIDED_CONFIDENCE)) * result.standard_error
    return NonInferiority(result.difference, low, margin, bool(low > -margin), result.n)


def holm(p_values: Values) -> Tensor:
    """Adjust p-values for the family of comparisons they come from, by Holm's step-down rule.

    Args:
        p_values: (M,) in [0, 1]; NaN for a comparison that could not be made, which then is not of the family.

    Returns:
        (M,) float64 adjusted p-values in [0, 1], in the given order; NaN stays NaN.

    Raises:
        ValueError: If a p-value lies outside [0, 1].

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]

    Reference: Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    array = check_vector(p_values, "p_values", finite=False)
    defined = ~np.isnan(array)
    if ((array[defined] < 0) | (array[defined] > 1)).any():
        raise ValueError("Expected `p_values` to lie in [0, 1], but got a value outside. Pass probabilities.")
    order = np.argsort(array[defined], kind="stable")
    stepped = array[defined][order] * np.arange(len(order), 0, -1)
    adjusted = np.full_like(array, np.nan)
    adjusted[np.flatnonzero(defined)[order]] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return torch.from_numpy(adjusted)


def _keep_defined(values: Array, groups: Values | None) -> tuple[Array, NDArray[np.intp]]:
    index = check_groups(groups, values.size)
    defined = ~np.isnan(values)
    # Numbered again, as a patient may have lost every image.
    return values[defined], np.unique(index[defined], return_inverse=True)[1]


def _mean_statistic(values: Array) -> Callable[[Array], Array]:
    return lambda weights: (weights @ values / weights.sum(1))[:, None]


def _draw(statistics: Callable[[Array], Array], groups: NDArray[np.intp], *, resamples: int, seed: int) -> Array:
    check_positive(resamples, "resamples")
    return np.concatenate([statistics(block) for block in draw_weights(groups, resamples=resamples, seed=seed)])


def _percentiles(draws: Array, groups: NDArray[np.intp], confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` to lie in (0, 1), but got {confidence}. Try 0.95.")
    defined = draws[~np.isnan(draws)]
    if groups.max() == 0 or defined.size == 0:
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _placements(positive: NDArray[np.bool_], scores: Array) -> tuple[Array, Array]:
    """Share of the other class that each image is ranked right against: positives (m,), negatives (n,)."""
    high, low = scores[positive], scores[~positive]
    ranks = stats.rankdata(np.concatenate([high, low]))
    above = (ranks[: high.size] - stats.rankdata(high)) / low.size
    below = 1 - (ranks[high.size :] - stats.rankdata(low)) / high.size
    return above, below


def _standard_error(v10: Array, v01: Array, groups10: NDArray[np.intp], groups01: NDArray[np.intp]) -> float:
    m, n, size = v10.size, v01.size, 1 + int(max(groups10.max(), groups01.max()))
    with10, with01 = len(np.unique(groups10)), len(np.unique(groups01))
    if min(with10, with01) < 2:
        return np.nan
    s10 = np.bincount(groups10, v10 - v10.mean(), minlength=size)
    s01 = np.bincount(groups01, v01 - v01.mean(), minlength=size)
    within = with10 / (with10 - 1) * float(s10 @ s10) / m**2 + with01 / (with01 - 1) * float(s01 @ s01) / n**2
    between = 2 * size / (size - 1) * float(s10 @ s01) / (m * n)
    # The covariance of a patient's positives and negatives can outweigh both variances in small samples.
    return math.sqrt(max(within + between, 0.0))


def _two_sided(difference: float, error: float) -> float:
    if error == 0:
        return 1.0 if difference == 0 else np.nan
    return float(2 * stats.norm.sf(abs(difference) / error))
