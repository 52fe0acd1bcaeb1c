"""Labels of images, one class each or any number: which images are alike, how they are written, what is decided.

Targets are class indices (N,), or 0 and 1 (N, K) where classes are independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softcam.predict import decide

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Threshold = float | tuple[float, ...] | None
"""Probability from which the second class of two is reported, or each of several labels; None: the most probable."""


def to_strata(targets: Indices) -> Indices:
    """Return a number per image, (N,), that is the same for images with the same labels.

    Args:
        targets: (N,) or (N, K).

    Example:
        >>> to_strata(np.array([[1, 0], [0, 0], [1, 0]])).tolist()
        [1, 0, 1]
    """
    if targets.ndim == 1:
        return targets
    return np.asarray(np.unique(targets, axis=0, return_inverse=True)[1], dtype=np.int64).reshape(-1)


def decide_labels(probabilities: Floats, threshold: Threshold) -> Indices:
    """Return what is reported, in the form of targets.

    Args:
        probabilities: (N, K).
        threshold: Several numbers for independent classes.

    Example:
        >>> decide_labels(np.array([[0.6, 0.4]]), (0.5, 0.3)).tolist()
        [[1, 1]]
    """
    if isinstance(threshold, tuple):
        return (probabilities >= np.asarray(threshold)).astype(np.int64)
    return decide(probabilities, threshold)


def choose_explained(probabilities: NDArray[np.floating], threshold: Threshold) -> Indices:
    """Return the class, (N,), whose map explains what is reported.

    Of independent classes it is the most probable one that is reported, and the most probable of all where none is.

    Args:
        probabilities: (N, K).
        threshold: As for `decide_labels`.

    Example:
        >>> choose_explained(np.array([[0.8, 0.2], [0.8, 0.05]]), (0.9, 0.1)).tolist()
        [1, 0]
    """
    if not isinstance(threshold, tuple):
        return decide(probabilities, threshold)
    reported = probabilities >= np.asarray(threshold, probabilities.dtype)
    allowed = reported | ~reported.any(axis=1, keepdims=True)
    return np.asarray(np.where(allowed, probabilities, -1.0).argmax(axis=1), np.int64)


def agree(decided: Indices, targets: Indices) -> NDArray[np.bool_]:
    """Return which images are right in every label, (N,).

    Args:
        decided: (N,) or (N, K).
        targets: Likewise.
    """
    same: NDArray[np.bool_] = decided == targets
    return same if same.ndim == 1 else np.asarray(same.all(axis=1))


def write_labels(targets: Indices, classes: Sequence[str]) -> list[str]:
    """Return the names of each image's labels; several are joined by `;`.

    Args:
        targets: (N,) or (N, K).
        classes: K names.

    Example:
        >>> write_labels(np.array([[1, 1], [0, 0]]), ("a", "b"))
        ['a;b', '']
    """
    if targets.ndim == 1:
        return [classes[int(index)] for index in targets]
    return [";".join(name for name, flag in zip(classes, row, strict=True) if flag) for row in targets]


def has_label(targets: Indices, chosen: Sequence[int]) -> NDArray[np.bool_]:
    """Return which images, (N,), have any of some classes.

    Args:
        targets: (N,) or (N, K).
        chosen: Class indices.
    """
    if targets.ndim == 1:
        return np.isin(targets, list(chosen))
    return np.asarray(targets[:, list(chosen)].any(axis=1))
