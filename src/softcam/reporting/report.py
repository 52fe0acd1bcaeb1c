"""The report of an evaluation: one HTML page that asks nothing of the network, and its figures as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from softcam.evaluation.result import EvaluationResult
from softcam.files import write_atomic
from softcam.metrics.glossary import measure
from softcam.reporting import figures, gallery, tables
from softcam.reporting.charts import Chart, class_names, draw_charts, is_binary
from softcam.reporting.methods import method_tables
from softcam.reporting.models import model_table
from softcam.reporting.perturbation import choose_methods
from softcam.reporting.standings import list_standings
from softcam.reporting.uncertainty import uncertainty_view
from softcam.reporting.verdicts import verdicts
from softcam.reporting.wording import MODELS, estimate, method_title, number, percent, raise_powers, scientific

LABEL_COLUMNS = ("auroc", "average_precision", "sensitivity", "specificity")
"""What is shown of each of several independent labels."""


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
            calibration={MODELS[key]: rows for key, rows in (metrics.get("calibration") or {}).items() if rows},
            classes=classes,
            binary=is_binary(metrics),
            independent=bool(metrics.get("per_class")),
            confusion=tables.confusion_tables(metrics.get("confusion") or {}, classes),
            thresholds=tables.threshold_views(metrics.get("thresholds") or {}),
            threshold_rule=(metrics.get("threshold_rule") or {}).get("rule", ""),
            label_columns=tuple(map(measure, LABEL_COLUMNS)),
            label_rows=tables.label_rows(metrics.get("per_class") or {}, LABEL_COLUMNS),
            scale=scale,
            cases=gallery.case_views(result.gallery, scale),
            grid=result.gallery[0].margin.shape if result.gallery else None,
            identity=metrics.get("identity"),
            receptive_field=(metrics.get("conversion") or {}).get("receptive_field"),
            input_size=(metrics.get("conversion") or {}).get("input_size"),
            methods=method_tables(result.benchmark, metrics.get("comparisons") or ()),
            standings=list_standings(result.benchmark, metrics.get("comparisons") or ()),
            models=model_table(metrics),
            drawn=len(choose_methods(result.curves)),
            curve_ends=curve_ends(result.curves),
            locality=locality_view(metrics.get("locality") or {}, metrics.get("conversion") or {}),
            uncertainty=uncertainty_view(metrics),
            consistency=consistency_rows(metrics.get("consistency") or {}),
            provenance=dict(result.provenance),
        )
    )
    return page.lstrip() + "\n"


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
