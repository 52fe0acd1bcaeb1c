"""Parts of the test set for what is too slow, or too much to look at, on all of it: seeded and stratified."""

from __future__ import annotations

import numpy as np

from softcam.evaluation.labels import Indices


def draw_stratified(strata: Indices, count: int, *, seed: int) -> Indices:
    """Return positions of a random part in which every stratum has its share.

    The share is rounded by largest remainder; every stratum gets at least one image while there are places.

    Args:
        strata: (N,) stratum of each image.
        count: Images wanted; all are returned if there are no more.
        seed: Of the draw.

    Returns:
        Increasing positions, at most `count`.

    Example:
        >>> strata = np.array([0] * 6 + [1] * 2)
        >>> strata[draw_stratified(strata, 4, seed=0)].tolist()
        [0, 0, 0, 1]
    """
    if count >= len(strata):
        return np.arange(len(strata))
    generator = np.random.default_rng(seed)
    labels, sizes = np.unique(strata, return_counts=True)
    quotas = _share_out(sizes, count)
    drawn = [
        generator.choice(np.flatnonzero(strata == label), size=quota, replace=False)
        for label, quota in zip(labels, quotas, strict=True)
    ]
    positions: Indices = np.sort(np.concatenate(drawn)).astype(np.int64)
    return positions


def _share_out(sizes: Indices, count: int) -> Indices:
    exact = sizes * count / sizes.sum()
    quotas: Indices = np.floor(exact).astype(np.int64)
    quotas[np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]] += 1
    # The largest stratum gives a place to each that would be lost.
    for lost in np.flatnonzero(quotas == 0):
        if quotas.max() > 1:
            quotas[quotas.argmax()] -= 1
            quotas[lost] += 1
    return quotas
