"""The report of an evaluation: one HTML page that asks nothing of the network, and its figures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from softcam.evaluation.result import EvaluationResult
from softcam.files import write_atomic
from softcam.reporting import figures, gallery, tables
from softcam.reporting.verdicts import verdicts
from softcam.reporting.wording import estimate, measure, method_title, number, percent, raise_powers, scientific

_MODELS = {"softcam": "SoftCAM", "black_box": "black box"}


@dataclass(frozen=True)
class Chart:
    """A figure of the page and what it shows in words."""

    name: str
    figure: Figure
    alt: str

    @property
    def svg(self) -> Markup:
        """The figure as an element of the page."""
        return figures.to_svg(self.figure, self.name, alt=self.alt)


def write_report(result: EvaluationResult, out: str | Path, *, title: str = "SoftCAM evaluation") -> Path:
    """Write `report.html` and `figures/*.png` into a folder.

    The page holds all it shows, runs no script and forbids every request by its content security policy. The same
    result gives the same bytes.

    Args:
        result: What `evaluate` returned.
        out: The folder; it is created if needed.
        title: Heading of the page.

    Returns:
        The path of `report.html`.
    """
    folder = Path(out)
    charts = draw_charts(result)
    for chart in charts.values():
        write_atomic(folder / "figures" / f"{chart.name}.png", figures.to_png(chart.figure))
    path = folder / "report.html"
    write_atomic(path, render_report(result, charts, title=title))
    return path


def render_report(result: EvaluationResult, charts: Mapping[str, Chart], *, title: str) -> str:
    """Return the page as text.

    Args:
        result: What `evaluate` returned.
        charts: What `draw_charts` returned for it.
        title: Heading of the page.
    """
    metrics, scale = result.metrics, gallery.shared_scale(result.gallery)
    classes = class_names(result)
    confusion = metrics.get("confusion") or {}
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            palette=figures.PALETTE,
            verdicts=verdicts(metrics),
            noninferiority=metrics.get("noninferiority"),
            counts=metrics.get("counts") or {},
            has_black_box=bool(metrics.get("black_box")),
            groups=tables.headline_groups(metrics["classification"], metrics.get("black_box")),
            charts=charts,
            calibration={_MODELS[key]: rows for key, rows in (metrics.get("calibration") or {}).items() if rows},
            classes=classes,
            binary=len(classes) == 2,
            confusion={_MODELS[key]: tables.confusion_rows(rows, classes) for key, rows in confusion.items() if rows},
            thresholds={_MODELS[key]: at for key, at in (metrics.get("thresholds") or {}).items() if at is not None},
            scale=scale,
            cases=gallery.case_views(result.gallery, scale),
            grid=result.gallery[0].margin.shape if result.gallery else None,
            identity=metrics.get("identity"),
            receptive_field=(metrics.get("conversion") or {}).get("receptive_field"),
            input_size=(metrics.get("conversion") or {}).get("input_size"),
            methods=tables.method_table(result.benchmark, metrics.get("comparisons") or ()),
            curve_ends=curve_ends(result.curves),
            locality=locality_view(metrics.get("locality") or {}, metrics.get("conversion") or {}),
            consistency=consistency_rows(metrics.get("consistency") or {}),
            provenance=dict(result.provenance),
        )
    )
    return page.lstrip() + "\n"


def draw_charts(result: EvaluationResult) -> dict[str, Chart]:
    """Draw every chart for which the result holds data, by the name that its file carries."""
    metrics = result.metrics
    known = {"softcam": metrics["classification"], "black_box": metrics.get("black_box") or {}}
    binary = len(class_names(result)) == 2
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
    if locality := metrics.get("locality"):
        swap = locality["context_swap"]
        listed = "; ".join(f"{side} px {estimate(found)}" for side, found in swap.items())
        alt = f"Change of a cell's evidence if all outside of a window is replaced, by side of the window: {listed}."
        size = max((metrics.get("conversion") or {}).get("input_size") or (max(map(int, swap)),))
        charts.append(Chart("locality", figures.locality_figure(swap, size), alt))
    charts += [_perturbation_chart(result.curves, name) for name in _curve_names(result.curves)]
    return {chart.name: chart for chart in charts}


def class_names(result: EvaluationResult) -> tuple[str, ...]:
    """Return the class names in the model's order."""
    return tuple(str(name) for name in result.metrics["classes"])


def positive_share(matrix: Sequence[Sequence[int]] | None) -> float | None:
    """Return the share of images whose true class is the second of two; None for any other number of classes.

    >>> positive_share([[6, 0], [1, 1]])
    0.25
    """
    if not matrix or len(matrix) != 2:
        return None
    counts = np.asarray(matrix, dtype=float).sum(axis=1)
    return float(counts[1] / counts.sum()) if counts.sum() else None


def curve_ends(curves: pd.DataFrame) -> tuple[dict[str, str], ...]:
    """Return, per curve, fill and method, the mean probability over all steps with n: the figure as a table.

    Args:
        curves: Columns `method,curve,fill,patches,fraction,probability,low,high,n`.
    """
    rows = []
    for (curve, fill, method), points in curves.groupby(["curve", "fill", "method"], sort=False):
        line = points.sort_values("patches")
        last = line.iloc[-1]
        rows.append({
            "curve": str(curve), "fill": str(fill), "method": method_title(str(method)),
            "first": number(float(line.iloc[0]["probability"])),
            "mean": number(float(line["probability"].mean())),
            "last": estimate({"value": last["probability"], "low": last["low"], "high": last["high"]}),
            "fraction": percent(float(last["fraction"]), 0), "n": str(int(last["n"])),
        })  # fmt: skip
    return tuple(rows)


@dataclass(frozen=True)
class LocalityView:
    """How local a cell's evidence is, ready to be shown.

    Args:
        radius: Pixels that hold half of what a cell depends on, with the interval.
        stride: Input pixels from one cell to the next; empty if not known.
        places: Where the class evidence layers sit; empty for the place of the pooling.
        rows: Side of a window and the change outside of it, with the interval.
        scales: Share of the decision of each class evidence layer where there are several, from fine to coarse.
        n: Images.
    """

    radius: str
    stride: str
    places: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    scales: tuple[str, ...]
    n: str


def locality_view(locality: Mapping[str, Any], conversion: Mapping[str, Any]) -> LocalityView | None:
    """Return what was found about locality in words, or None if it was not measured.

    Args:
        locality: `receptive_field`, `context_swap` by side of the window, `scales`.
        conversion: The model's conversion report.
    """
    if not locality:
        return None
    return LocalityView(
        radius=estimate(locality["receptive_field"], 1),
        stride=f"{conversion['map_stride'][0]}" if conversion.get("map_stride") else "",
        places=tuple(map(str, conversion.get("places") or ())),
        rows=tuple((side, estimate(found)) for side, found in locality["context_swap"].items()),
        scales=tuple(estimate(found) for found in locality["scales"]),
        n=str(locality["images"]),
    )


def consistency_rows(consistency: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """Return the consistency measures that hold a value with an interval, ready to be shown."""
    return tuple(
        {"title": measure(name).title, "meaning": measure(name).meaning, "value": estimate(found), "n": str(found["n"])}
        for name, found in consistency.items()
        if isinstance(found, Mapping) and {"value", "low", "high", "n"} <= found.keys()
    )


def _perturbation_chart(curves: pd.DataFrame, name: Literal["deletion", "insertion"]) -> Chart:
    rows = curves[curves["curve"] == name]
    means = rows.groupby("method", sort=False)["probability"].mean()
    listed = "; ".join(f"{method_title(str(method))} {number(float(value))}" for method, value in means.items())
    verb = "removed" if name == "deletion" else "shown"
    alt = f"{name.capitalize()}: mean probability of the target as the best patches are {verb}. Mean height: {listed}."
    return Chart(name, figures.perturbation_figure(curves, name), alt)


def _curve_names(curves: pd.DataFrame) -> list[Literal["deletion", "insertion"]]:
    names: tuple[Literal["deletion", "insertion"], ...] = ("deletion", "insertion")
    return [name for name in names if (curves["curve"] == name).any()]


def _describe(title: str, what: str, known: Mapping[str, Mapping[str, Any]], name: str) -> str:
    parts = [f"{_MODELS[key]} {estimate(found[name])}" for key, found in known.items() if name in found]
    return f"{title}. {what.capitalize()} with 95 % interval: {', '.join(parts)}." if parts else f"{title}."


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("softcam.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "scientific": scientific, "estimate": estimate, "percent": percent}
    environment.filters["raise_powers"] = raise_powers
    environment.tests["mapping_like"] = lambda value: isinstance(value, Mapping)
    return environment
