"""How well models of a sweep classify, and whether one keeps up with another on the same validation images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softcam.evaluation.labels import Floats, Indices
from softcam.metrics import NonInferiority, auroc, macro_noninferiority, noninferiority
from softcam.metrics.inputs import to_flags


def measure_auroc(probabilities: Floats, targets: Indices) -> float:
    """Return the AUROC of the second class of two, or its mean over more classes, or over independent labels.

    Classes that no image has, or every one, say nothing and are left out; NaN where that leaves none.

    Args:
        probabilities: (N, K).
        targets: (N,) class indices, or (N, K) of 0 and 1 where classes are independent.

    Example:
        >>> measure_auroc(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
        1.0
    """
    flags = to_flags(targets, probabilities.shape[1])
    chosen = _telling(flags)
    if is_binary(probabilities, targets):
        chosen = chosen[1:]
    values = [auroc(probabilities[:, index], flags[:, index]) for index in chosen]
    return float(np.mean(values)) if values else float("nan")


def compare_auroc(
    new: Floats, old: Floats, targets: Indices, *, margin: float, patients: NDArray[np.object_] | None
) -> NonInferiority:
    """Test that new probabilities are not worse than old ones: DeLong's for two classes, else a paired bootstrap.

    Args:
        new: (N, K) under test.
        old: (N, K) on the same images.
        targets: (N,) class indices, or (N, K) of 0 and 1 where classes are independent.
        margin: Loss of AUROC that is accepted, in (0, 1).
        patients: (N,) whose images they are; each image stands for itself if left out.
    """
    if is_binary(new, targets):
        return noninferiority(targets, new[:, 1], old[:, 1], margin=margin, groups=patients)
    flags = to_flags(targets, new.shape[1])
    chosen = _telling(flags)
    if not len(chosen):
        return NonInferiority(np.nan, np.nan, margin, passed=False, n=len(targets))
    labels = flags[:, chosen].astype(np.int64)
    return macro_noninferiority(labels, new[:, chosen], old[:, chosen], margin=margin, groups=patients)


def is_binary(probabilities: Floats, targets: Indices) -> bool:
    """Return whether there are two classes that exclude each other."""
    return targets.ndim == 1 and probabilities.shape[1] == 2


def _telling(flags: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the classes that some images have and others do not."""
    return np.flatnonzero(flags.any(axis=0) & ~flags.all(axis=0))
