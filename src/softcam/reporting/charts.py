"""Every chart of the report with what it shows in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from softcam.evaluation.result import EvaluationResult
from softcam.metrics.glossary import measure
from softcam.reporting import figures
from softcam.reporting.methods import DECISIVE
from softcam.reporting.perturbation import Curve, choose_methods, perturbation_figure
from softcam.reporting.ranking import describe_ranking, ranking_figure
from softcam.reporting.uncertainty import describe_selective, selective_figure
from softcam.reporting.wording import MODELS, estimate, method_title, number


@dataclass(frozen=True)
class Chart:
    """A figure of the page.

    Args:
        name: Unique in the page; the name of its file.
        figure: The drawing.
        alt: What it shows in words.
        heading: Its title, for a figure that stands among others of its kind.
    """

    name: str
    figure: Figure
    alt: str
    heading: str = ""

    @property
    def svg(self) -> Markup:
        """The figure as an element of the page."""
        return figures.to_svg(self.figure, self.name, alt=self.alt)


def draw_charts(result: EvaluationResult) -> dict[str, Chart]:
    """Draw every chart for which the result holds data, by the name that its file carries."""
    metrics = result.metrics
    known = {"softcam": metrics["classification"], "black_box": metrics.get("black_box") or {}}
    binary = is_binary(metrics)
    charts: list[Chart] = []
    if test := metrics.get("noninferiority"):
        alt = f"Difference in {test['metric']} {number(test['difference'], signed=True)}, one-sided 97.5 % bound "
        alt += f"{number(test['low'], signed=True)}, margin {number(-test['margin'])}."
        charts.append(Chart("noninferiority", figures.noninferiority_figure(test), alt))
    if curves := metrics.get("roc"):
        alt = _describe("Receiver operating characteristic", "area under the curve", known, "auroc")
        charts.append(Chart("roc", figures.roc_figure(curves, known, binary=binary), alt))
    if curves := metrics.get("pr"):
        share = positive_share((metrics.get("confusion") or {}).get("softcam"))
        alt = _describe("Precision against recall", "average precision", known, "average_precision")
        charts.append(Chart("precision-recall", figures.precision_recall_figure(curves, known, prevalence=share), alt))
    if bins := metrics.get("calibration"):
        alt = _describe("Observed share against predicted probability", "calibration error", known, "ece")
        charts.append(Chart("calibration", figures.calibration_figure(bins), alt))
    if curves := (metrics.get("uncertainty") or {}).get("selective"):
        charts.append(Chart("selective", selective_figure(curves), describe_selective(curves)))
    if locality := metrics.get("locality"):
        swap = locality["context_swap"]
        listed = "; ".join(f"{side} px {estimate(found)}" for side, found in swap.items())
        alt = f"Change of a cell's evidence if all outside of a window is replaced, by side of the window: {listed}."
        size = max((metrics.get("conversion") or {}).get("input_size") or (max(map(int, swap)),))
        charts.append(Chart("locality", figures.locality_figure(swap, size), alt))
    charts += [_perturbation_chart(result.curves, name) for name in _curve_names(result.curves)]
    charts += _ranking_charts(result.benchmark, metrics.get("comparisons") or ())
    return {chart.name: chart for chart in charts}


def class_names(result: EvaluationResult) -> tuple[str, ...]:
    """Return the class names in the model's order."""
    return tuple(str(name) for name in result.metrics["classes"])


def is_binary(metrics: Mapping[str, Any]) -> bool:
    """Return whether there are two classes that exclude each other."""
    return len(metrics["classes"]) == 2 and not metrics.get("per_class")


def positive_share(matrix: Sequence[Sequence[int]] | Mapping[str, Any] | None) -> float | None:
    """Return the share of images whose true class is the second of two; None for any other number of classes.

    Of independent labels, the share of positives among all decisions.

    >>> positive_share([[6, 0], [1, 1]])
    0.25
    """
    if isinstance(matrix, Mapping):
        return positive_share(np.sum([np.asarray(found) for found in matrix.values()], axis=0).tolist())
    if not matrix or len(matrix) != 2:
        return None
    counts = np.asarray(matrix, dtype=float).sum(axis=1)
    return float(counts[1] / counts.sum()) if counts.sum() else None


def _perturbation_chart(curves: pd.DataFrame, name: Curve) -> Chart:
    rows = curves[curves["curve"] == name]
    means = rows.groupby("method", sort=False)["probability"].mean()
    chosen = choose_methods(curves)
    listed = "; ".join(f"{method_title(method)} {number(float(means[method]))}" for method in chosen if method in means)
    others = f"; and {len(means) - len(chosen)} other methods" if len(means) > len(chosen) else ""
    verb = "removed" if name == "deletion" else "shown"
    alt = f"{name.capitalize()}: mean probability of the target as the best patches are {verb}. "
    return Chart(name, perturbation_figure(curves, name), f"{alt}Mean height: {listed}{others}.")


def _curve_names(curves: pd.DataFrame) -> list[Curve]:
    names: tuple[Curve, ...] = ("deletion", "insertion")
    return [name for name in names if (curves["curve"] == name).any()]


def _ranking_charts(benchmark: pd.DataFrame, comparisons: Sequence[Mapping[str, Any]]) -> list[Chart]:
    reference = str(comparisons[0]["against"]) if comparisons else ""
    charts = []
    for metric in DECISIVE:
        rows = benchmark[benchmark["metric"] == metric]
        if rows["value"].notna().sum() > 1:
            figure = ranking_figure(rows, reference=reference)
            charts.append(
                Chart(f"ranking-{metric.replace('_', '-')}", figure, describe_ranking(rows), measure(metric).title)
            )
    return charts


def _describe(title: str, what: str, known: Mapping[str, Mapping[str, Any]], name: str) -> str:
    parts = [f"{MODELS[key]} {estimate(found[name])}" for key, found in known.items() if name in found]
    return f"{title}. {what.capitalize()} with 95 % interval: {', '.join(parts)}." if parts else f"{title}."
