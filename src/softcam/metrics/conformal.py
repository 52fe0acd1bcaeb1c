"""Sets of classes that hold the true one as often as was asked for: split conformal prediction.

The promise is about images that are exchangeable with those the quantile was chosen on, on average over all of them:
not about every class, every subgroup or images of another kind.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from softcam.metrics.inputs import Array, Values, check_groups, check_vector, to_numpy
from softcam.metrics.statistics import Interval, bootstrap_interval
from softcam.metrics.tasks import check_classes

Score: TypeAlias = Literal["lac", "aps"]
SCORES: tuple[str, ...] = get_args(Score)

# Of rounding alone: (n + 1)(1 - alpha) is a whole number for the usual alphas.
_ROUNDING = 1e-9


class SetSizes(NamedTuple):
    """How many classes prediction sets hold.

    Args:
        mean: Mean number of classes.
        empty: Share of images with no class in their set, in [0, 1].
        single: Share of images with one class.
        several: Share of images with two or more.
        n: Number of images.
    """

    mean: float
    empty: float
    single: float
    several: float
    n: int


def nonconformity(probabilities: Values, *, score: Score = "lac") -> Array:
    """Return how badly each class fits each image; what fits well has a low score.

    `lac` (least ambiguous classifier): 1 minus the probability of the class, which gives the smallest sets on average.
    `aps` (adaptive prediction sets): the probability of the class and of all that are more probable, which gives larger
    sets to harder images. Without the random number of Romano et al., so that the same image always gets the same set,
    and at least the coverage that was asked for.

    Args:
        probabilities: (N, K) of exclusive classes, rows summing to 1.
        score: `lac` or `aps`.

    Returns:
        (N, K) in [0, 1].

    Raises:
        ValueError: If `score` is unknown, or `probabilities` are not (N, K) with K >= 2 in [0, 1].

    >>> nonconformity([[0.5, 0.25, 0.25]], score="aps").tolist()
    [[0.5, 1.0, 1.0]]

    Reference: Sadinle et al. 2019, JASA 114:223 (lac); Romano et al. 2020, arXiv 2006.02544 (aps).
    """
    array = to_numpy(probabilities).astype(np.float64)
    if score not in SCORES:
        raise ValueError(f"Expected `score` to be one of {', '.join(SCORES)}, but got {score!r}.")
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] < 2 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(
            f"Expected `probabilities` to be (N, K) in [0, 1] with K >= 2 exclusive classes, but got {array.shape}. "
            "Several labels per image have no prediction set."
        )
    scores: Array = 1 - array if score == "lac" else _accumulate(array)
    return scores


def least_images(alpha: float) -> int:
    """Return how many validation images a quantile for this alpha needs: ceil(1 / alpha) - 1.

    >>> least_images(0.1), least_images(0.05)
    (9, 19)
    """
    return math.ceil(1 / _check_alpha(alpha) - _ROUNDING) - 1


def conformal_quantile(scores: Values, *, alpha: float) -> float:
    """Return the ceil((n + 1)(1 - alpha))-th smallest score: sets up to it hold the true class often enough.

    Args:
        scores: (n,) nonconformity of the true class of each validation image.
        alpha: Share of images whose set may miss the true class, in (0, 1).

    Raises:
        ValueError: If `alpha` is out of range, or there are fewer images than it needs.

    >>> conformal_quantile([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], alpha=0.1)
    0.9

    Reference: Vovk et al. 2005, Algorithmic Learning in a Random World; Papadopoulos et al. 2002, ECML (split);
    Angelopoulos & Bates 2023, Foundations and Trends in Machine Learning 16:494, equation 1.
    """
    array = np.sort(check_vector(scores, "scores"))
    if len(array) < (least := least_images(alpha)):
        raise ValueError(
            f"Expected at least {least} images for an alpha of {alpha:g}, but got {len(array)}. "
            "Choose a larger alpha, or more validation images."
        )
    rank = math.ceil((len(array) + 1) * (1 - alpha) - _ROUNDING)
    return float(array[rank - 1])


def true_scores(probabilities: Values, targets: Values, *, score: Score = "lac") -> Array:
    """Return the nonconformity (N,) of the true class of each image.

    Args:
        probabilities: (N, K) as in `nonconformity`.
        targets: (N,) class indices.
        score: `lac` or `aps`.

    Raises:
        ValueError: As `nonconformity` does, or if a target is out of range.
    """
    scores = nonconformity(probabilities, score=score)
    index = check_classes(targets, "targets", scores.shape[1], size=len(scores))
    return scores[np.arange(len(scores)), index]


def prediction_sets(probabilities: Values, *, quantile: float, score: Score = "lac") -> NDArray[np.bool_]:
    """Return which classes fit an image well enough, (N, K): those whose nonconformity is at most the quantile.

    A set may be empty: then no class reaches the probability that true classes usually have. It also may hold every
    class.

    Args:
        probabilities: (N, K) as in `nonconformity`.
        quantile: What `conformal_quantile` returned, for the same score.
        score: `lac` or `aps`.

    Raises:
        ValueError: As `nonconformity` does.

    >>> prediction_sets([[0.9, 0.1], [0.6, 0.4]], quantile=0.6).tolist()
    [[True, False], [True, True]]
    """
    found: NDArray[np.bool_] = nonconformity(probabilities, score=score) <= quantile
    return found


def coverage(
    sets: Values, targets: Values, *, groups: Values | None = None, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Share of images whose set holds the true class, with a 95 % interval.

    Of independent images the interval is that of Clopper and Pearson; where patients are known, a bootstrap over them.

    Args:
        sets: (N, K) which classes are in the set.
        targets: (N,) class indices.
        groups: (N,) patient of each image; each image is its own group if left out.
        resamples: Of the bootstrap, at least 1.
        seed: Of the bootstrap.

    Returns:
        In [0, 1]; the aim is 1 - alpha, neither less nor much more.

    Raises:
        ValueError: If a shape is wrong, a target is out of range or a group is missing.

    >>> found = coverage([[True, False], [True, True], [False, True], [True, False]], [0, 1, 1, 1])
    >>> found.value, round(found.low, 3), round(found.high, 3)
    (0.75, 0.194, 0.994)

    Reference: Clopper & Pearson 1934, Biometrika 26:404.
    """
    members = to_numpy(sets).astype(bool)
    if members.ndim != 2 or members.shape[0] == 0:
        raise ValueError(f"Expected `sets` to be (N, K) with N >= 1, but got {members.shape}. One row per image.")
    index = check_classes(targets, "targets", members.shape[1], size=len(members))
    hits = members[np.arange(len(members)), index]
    # Patients with one image each are images that are independent.
    if groups is not None and check_groups(groups, len(hits)).max() + 1 < len(hits):
        return bootstrap_interval(hits.astype(np.float64), groups=groups, resamples=resamples, seed=seed)
    return exact_interval(int(hits.sum()), len(hits))


def exact_interval(count: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Return a share of independent images with the interval of Clopper and Pearson.

    Args:
        count: Images that have the property, from 0 to `total`.
        total: All images, at least 1.
        confidence: Coverage of the two-sided interval, in (0, 1).

    >>> exact_interval(0, 10).low, round(exact_interval(0, 10).high, 4)
    (0.0, 0.3085)
    """
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(1 - tail, count + 1, total - count)) if count < total else 1.0
    return Interval(count / total, low, high, total)


def expected_coverage(n: int, *, alpha: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return between which shares the coverage of `total` new images lies, for quantiles of n images each.

    Which n validation images there were decides how many of the others are covered: their count is beta-binomial.

    Args:
        n: Validation images.
        alpha: As in `conformal_quantile`.
        total: New images.
        confidence: Probability of a share between the two, at least.

    Raises:
        ValueError: If `alpha` is out of range, or n is too small for it.

    >>> expected_coverage(1000, alpha=0.1, total=1000)
    (0.873, 0.925)

    Reference: Vovk 2012, ACML, proposition 2a; Angelopoulos & Bates 2023, section 3.2.
    """
    if n < least_images(alpha):
        raise ValueError(f"Expected `n` to be at least {least_images(alpha)} for this alpha, but got {n}.")
    rank = math.ceil((n + 1) * (1 - alpha) - _ROUNDING)
    law = stats.betabinom(total, rank, n + 1 - rank)
    tail = (1 - confidence) / 2
    return float(law.ppf(tail)) / total, float(law.ppf(1 - tail)) / total


def set_sizes(sets: Values) -> SetSizes:
    """Return how large prediction sets are.

    Args:
        sets: (N, K) which classes are in the set, N >= 1.

    >>> set_sizes([[True, False], [True, True], [False, False], [False, True]])
    SetSizes(mean=1.0, empty=0.25, single=0.5, several=0.25, n=4)
    """
    counts = to_numpy(sets).astype(bool).sum(1)
    empty, single, several = (float(found.mean()) for found in (counts == 0, counts == 1, counts > 1))
    return SetSizes(float(counts.mean()), empty, single, several, len(counts))


def _accumulate(probabilities: Array) -> Array:
    """Return the probability of each class and of all that are at least as probable, (N, K)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    sums = np.minimum(np.cumsum(ordered, axis=1), 1.0)
    # Classes of the same probability enter together: each has the sum at the last of them.
    sums[:, :-1][ordered[:, :-1] == ordered[:, 1:]] = np.inf
    sums = np.minimum.accumulate(sums[:, ::-1], axis=1)[:, ::-1]
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def _check_alpha(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"Expected `alpha` to lie in (0, 1), but got {alpha}. State a share of misses such as 0.1.")
    return alpha
