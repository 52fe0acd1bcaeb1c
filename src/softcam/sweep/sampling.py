"""Points that optuna chooses, by what came of those before."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from softcam.errors import RecipeError
from softcam.libraries import load_library
from softcam.sweep.space import Point, Space
from softcam.sweep.trial import Failure, Measurement

ROUND = 4
"""Points that are chosen at a time, however many are trained at a time: what is found must not depend on that."""

DIGITS = 3
"""Significant digits of a strength."""


def sample_points(
    space: Space,
    run: Callable[[Sequence[Point]], list[Measurement | Failure]],
    judge: Callable[[Measurement], tuple[float, float]],
    *,
    trials: int,
    seed: int,
) -> list[Measurement | Failure]:
    """Return what came of points that a tree-structured Parzen estimator chose for both aims at once.

    Its draws depend on the seed and on what came of earlier points alone, so that a repeated call, which finds these on
    disk, chooses the same ones.

    Args:
        space: Complete; strengths are drawn between the smallest and the largest above 0, evenly in their logarithm.
        run: Trains and measures points.
        judge: Returns the AUROC and the sparsity; both are to grow.
        trials: How many points.
        seed: Of the draws.

    Raises:
        MissingExtraError: If optuna is not installed.
        RecipeError: If the space has fewer than two strengths above 0 and nothing else to choose between.

    Reference:
        Ozaki et al., "Multiobjective tree-structured Parzen estimator for computationally expensive optimization
        problems", 2020.
    """
    optuna: Any = load_library("optuna", extra="sweep")
    ranges = _list_ranges(optuna, space)
    found: dict[Point, Measurement | Failure] = {}
    with _quiet(optuna):
        study = optuna.create_study(
            directions=["maximize", "maximize"],
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        )
        for start in range(0, trials, ROUND):
            asked = [study.ask(ranges) for _ in range(min(ROUND, trials - start))]
            points = [_read_point(space, trial.params) for trial in asked]
            new = [point for point in dict.fromkeys(points) if point not in found]
            found |= dict(zip(new, run(new), strict=True))
            for trial, point in zip(asked, points, strict=True):
                _tell(optuna, study, trial, found[point], judge)
    return list(found.values())


def _list_ranges(optuna: Any, space: Space) -> dict[str, Any]:
    ranges: dict[str, Any] = {}
    for name, values in (("l1", space.l1), ("l2", space.l2)):
        positive = [value for value in values if value > 0]
        if positive and min(positive) < max(positive):
            ranges[name] = optuna.distributions.FloatDistribution(min(positive), max(positive), log=True)
    forms = len(space.list_forms())
    if forms > 1:
        ranges["form"] = optuna.distributions.CategoricalDistribution(range(forms))
    if not ranges:
        raise RecipeError(
            "Expected something for optuna to choose, but got neither two strengths above 0 nor several forms. Leave "
            "out the number of trials."
        )
    return ranges


def _read_point(space: Space, values: dict[str, Any]) -> Point:
    l1, l2 = (_read_strength(values.get(name), given) for name, given in (("l1", space.l1), ("l2", space.l2)))
    return Point(l1, l2, space.list_forms()[values.get("form", 0)])


def _read_strength(drawn: float | None, given: tuple[float, ...]) -> float:
    return max(given) if drawn is None else float(f"{drawn:.{DIGITS}g}")


def _tell(
    optuna: Any,
    study: Any,
    trial: Any,
    found: Measurement | Failure,
    judge: Callable[[Measurement], tuple[float, float]],
) -> None:
    if isinstance(found, Failure):
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    aims = judge(found)
    # Optuna takes no NaN; a map that is 0 everywhere has no sparsity.
    study.tell(trial, [0.0 if math.isnan(aim) else aim for aim in aims])


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)
