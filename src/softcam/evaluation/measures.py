"""What one method's maps are worth on one batch: each measure gives one value per image for each of its metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from softcam.evaluation.localization import LOCALIZATION, measure_localization
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.subjects import Subject
from softcam.metrics import (
    Regions,
    area_under_curve,
    average_drop,
    components,
    confidence_increase,
    count_patches,
    deletion_curve,
    entropy,
    gini,
    grid_pointing_game,
    highlight,
    infidelity,
    insertion_curve,
    irof,
    list_layers,
    max_sensitivity,
    near_zero_share,
    parameter_randomization,
    random_logit,
    relative_drop,
    road,
    sensitivity_n,
)
from softcam.metrics.patches import resize_maps
from softcam.metrics.queries import Explain

Values = dict[str, Tensor]
COMPLEXITY: dict[str, Callable[[Tensor], Tensor]] = {
    "gini": gini,
    "entropy": entropy,
    "near_zero_share": near_zero_share,
    "components": components,
}


@dataclass(frozen=True, eq=False)
class Case:
    """What a measure looks at.

    Args:
        subject: The model, the images and the classes that the maps are of.
        maps: (N, h, w) raw signed, finite.
        explain: Makes such maps of other images and classes.
        patch: Side of a patch in pixels.
        settings: Points, fills, samples and seeds.
    """

    subject: Subject
    maps: Tensor
    explain: Explain
    patch: int
    settings: EvaluationSettings

    @property
    def asked(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images, maps and target, as metrics take them."""
        return self.subject.images, self.maps, self.subject.target


@dataclass(frozen=True)
class Measure:
    """A family of metrics that are measured together.

    Args:
        run: From a case to its values: by metric (N,), and by `curve/fill` (N, P) probabilities at the points.
        metrics: Names and the direction that is good, `higher` or `lower`, for settings.
    """

    run: Callable[[Case], Values]
    metrics: Callable[[EvaluationSettings], dict[str, str]]


def measure_localisation(case: Case) -> Values:
    """Return how well maps find what is marked in the image; nothing where no findings are known."""
    truth = case.subject.truth
    return {} if truth is None else measure_localization(case.maps.cpu(), truth)


def measure_curves(case: Case) -> Values:
    """Return deletion and insertion curves with their areas.

    Areas are those under the probability over the number of patches, the axis scaled to length 1; `relative_drop` is
    the share of the probability that is left at the last point.
    """
    points, found = case.settings.points, Values()
    for fill in case.settings.fills:
        removed = follow_curve(case, "deletion", fill)
        found[f"deletion/{fill}"] = removed
        found[f"deletion_area_{fill}"] = area_under_curve(removed, points)
        found[f"relative_drop_{fill}"] = relative_drop(removed[:, 0], removed[:, -1])
    for fill in case.settings.insertion_fills:
        shown = follow_curve(case, "insertion", fill)
        found[f"insertion/{fill}"] = shown
        found[f"insertion_area_{fill}"] = area_under_curve(shown, points)
    return found


def follow_curve(case: Case, kind: Literal["deletion", "insertion"], fill: str) -> Tensor:
    """Return a curve (N, P) float64 on the CPU.

    Its first point, the whole image or the wholly filled one, is the same for every method and comes from the subject.

    Args:
        case: The maps.
        kind: Whether patches are removed or shown.
        fill: Name of a fill.
    """
    subject = case.subject
    start = subject.before if kind == "deletion" else subject.filled[fill]
    curve = deletion_curve if kind == "deletion" else insertion_curve
    rows = curve(subject.predict, *case.asked, patch=case.patch, steps=case.settings.points[1:], fill=fill)
    return torch.cat([start.double()[:, None], rows], dim=1).cpu()


def measure_drop(case: Case) -> Values:
    """Return what happens to the probability if only what the map highlights is shown."""
    images, maps, target = case.asked
    before = case.subject.before
    after = case.subject.predict(highlight(images, maps)).gather(1, target[:, None])[:, 0].to(before)
    return {"average_drop": average_drop(before, after), "confidence_increase": confidence_increase(before, after)}


def measure_complexity(case: Case) -> Values:
    """Return the complexity of the map resized to the input, so that coarse and fine maps are on the same grid."""
    size = case.subject.images.shape[-2], case.subject.images.shape[-1]
    resized = resize_maps(case.maps.double(), size)
    return {name: metric(resized) for name, metric in COMPLEXITY.items()}


def measure_road(case: Case) -> Values:
    """Return ROAD, averaged over the shares of removed pixels."""
    found = road(case.subject.predict, *case.asked, shares=case.settings.shares, seed=case.settings.seed)
    return {
        "road_morf": found.morf.mean(1),
        "road_lerf": found.lerf.mean(1),
        "road_combined": found.combined.mean(1),
    }


def measure_irof(case: Case) -> Values:
    """Return IROF over regular segments of twice the side of a patch."""
    return {"irof": irof(case.subject.predict, *case.asked, segments=2 * case.patch)}


def measure_infidelity(case: Case) -> Values:
    """Return how badly the map forecasts the log-odds' loss, as a share of its mean square: 1 is a map of nothing."""
    images, maps, target = case.asked
    regions = _regions(case, 2 * case.patch)
    error, nothing = (
        infidelity(case.subject.log_odds, images, tried, target, regions=regions)
        for tried in (maps, torch.zeros_like(maps))
    )
    return {"infidelity": (error / nothing).masked_fill(nothing == 0, torch.nan)}


def measure_sensitivity(case: Case) -> Values:
    """Return sensitivity-n of the log-odds, averaged over 1 %, 5 % and 20 % of the patches."""
    regions = _regions(case, case.patch)
    height, width = case.subject.images.shape[-2:]
    total = count_patches((height, width), case.patch)
    sizes = sorted({max(1, round(share * total)) for share in (0.01, 0.05, 0.2)})
    found = sensitivity_n(case.subject.log_odds, *case.asked, sizes=sizes, regions=regions)
    return {"sensitivity_n": found.nanmean(1)}


def measure_stability(case: Case) -> Values:
    """Return how far small noise changes the map."""
    images, _, target = case.asked
    samples, seed = case.settings.samples, case.settings.seed
    return {"max_sensitivity": max_sensitivity(case.explain, images, target, samples=max(1, samples // 4), seed=seed)}


def measure_randomization(case: Case) -> Values:
    """Return how much of the map stays if the top layer, or every layer, or the class becomes random."""
    images, _, target = case.asked
    model, seed = case.subject.model, case.settings.seed
    classes = case.subject.forward(images[:1]).shape[1]
    layers = (list_layers(model)[0], "")
    found = parameter_randomization(model, case.explain, images, target, layers=layers, seed=seed)
    return {
        "randomization_top": found[:, 0],
        "randomization_all": found[:, 1],
        "random_logit": random_logit(case.explain, images, target, classes=classes, seed=seed),
    }


def measure_mosaics(case: Case) -> Values:
    """Return the grid pointing game, 2 x 2; NaN for networks that take images of one size alone."""
    images, _, target = case.asked
    try:
        found = grid_pointing_game(case.explain, images, target, grid=2, seed=case.settings.seed)
    except (RuntimeError, AssertionError):
        found = torch.full(target.shape, torch.nan, dtype=torch.float64)
    return {"grid_pointing": found}


def _regions(case: Case, side: int) -> Regions:
    return Regions(side, samples=case.settings.samples, seed=case.settings.seed)


def _fixed(**directions: str) -> Callable[[EvaluationSettings], dict[str, str]]:
    return lambda _settings: directions


def _list_curves(settings: EvaluationSettings) -> dict[str, str]:
    removed = {f"{kind}_{fill}": "lower" for fill in settings.fills for kind in ("deletion_area", "relative_drop")}
    return removed | {f"insertion_area_{fill}": "higher" for fill in settings.insertion_fills}


MEASURES: dict[str, Measure] = {
    "localization": Measure(measure_localisation, _fixed(**dict.fromkeys(LOCALIZATION, "higher"))),
    "curves": Measure(measure_curves, _list_curves),
    "drop": Measure(measure_drop, _fixed(average_drop="lower", confidence_increase="higher")),
    "road": Measure(measure_road, _fixed(road_morf="lower", road_lerf="higher", road_combined="higher")),
    "irof": Measure(measure_irof, _fixed(irof="higher")),
    "infidelity": Measure(measure_infidelity, _fixed(infidelity="lower")),
    "sensitivity_n": Measure(measure_sensitivity, _fixed(sensitivity_n="higher")),
    "max_sensitivity": Measure(measure_stability, _fixed(max_sensitivity="lower")),
    "randomization": Measure(
        measure_randomization, _fixed(randomization_top="lower", randomization_all="lower", random_logit="lower")
    ),
    "grid_pointing": Measure(measure_mosaics, _fixed(grid_pointing="higher")),
    "complexity": Measure(
        measure_complexity, _fixed(gini="higher", entropy="lower", near_zero_share="higher", components="lower")
    ),
}
"""By name; `softcam.evaluation.settings.MEASURES` names them in the same order."""


def list_metrics(settings: EvaluationSettings, *, located: bool = False) -> dict[str, str]:
    """Return the names of all metrics and the direction that is good, `higher` or `lower`.

    Args:
        settings: Which measures, and fills.
        located: Whether findings are known.

    Example:
        >>> list_metrics(EvaluationSettings())["deletion_area_mean"]
        'lower'
    """
    chosen = [name for name in MEASURES if name in settings.measures and (located or name != "localization")]
    return {metric: good for name in chosen for metric, good in MEASURES[name].metrics(settings).items()}
