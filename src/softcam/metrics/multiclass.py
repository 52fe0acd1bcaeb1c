"""Comparisons of classifiers of more than two classes, exclusive or independent."""

from __future__ import annotations

import numpy as np

from softcam.metrics import weighted
from softcam.metrics.inputs import Array, Values, check_groups, to_flags
from softcam.metrics.statistics import NonInferiority, bootstrap_statistics


def macro_noninferiority(
    target: Values,
    probabilities_new: Values,
    probabilities_old: Values,
    *,
    margin: float = 0.02,
    groups: Values | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> NonInferiority:
    """Test that the macro AUROC of new probabilities is not worse than that of old ones by `margin` or more.

    The macro AUROC is the mean over classes of one class against the rest, or over independent labels of those who have
    each against those who do not. Passed if the lower bound of the two-sided
    95 % percentile bootstrap interval of the paired difference lies above -margin. For two classes `noninferiority`
    needs no resampling.

    Args:
        target: (N,) class indices, or (N, K) of 0 and 1 where classes are independent.
        probabilities_new: (N, K) under test.
        probabilities_old: (N, K) that they are compared with, on the same images.
        margin: Largest acceptable loss, in (0, 1), stated beforehand.
        groups: (N,) patient of each image; each image is its own group if left out.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        The difference (higher is better), its lower bound and the verdict; NaN and not passed where a class has no
        image, or every one.

    Raises:
        ValueError: If shapes do not fit each other, or `margin` is out of range.

    Reference: Davison & Hinkley 1997, Bootstrap Methods and their Application; ICH E9.
    """
    if not 0 < margin < 1:
        raise ValueError(f"Expected `margin` to lie in (0, 1), but got {margin}. State a loss in AUROC such as 0.02.")
    new, old = (np.asarray(values, dtype=np.float64) for values in (probabilities_new, probabilities_old))
    truth = np.asarray(target)
    if new.shape != old.shape or new.ndim != 2 or truth.shape not in (new.shape[:1], new.shape):
        raise ValueError(
            "Expected (N,) or (N, K) targets and twice (N, K) probabilities, but got "
            f"{truth.shape}, {new.shape}, {old.shape}."
        )
    positive = to_flags(truth, new.shape[1])

    def difference(weights: Array) -> Array:
        columns = [
            weighted.auroc(ours, flags, weights) - weighted.auroc(theirs, flags, weights)
            for ours, theirs, flags in zip(new.T, old.T, positive.T, strict=True)
        ]
        found: Array = np.mean(columns, axis=0)[:, None]
        return found

    index = check_groups(groups, len(truth))
    (interval,) = bootstrap_statistics(difference, index, resamples=resamples, seed=seed)
    return NonInferiority(interval.value, interval.low, margin, bool(interval.low > -margin), len(truth))
