"""Charts of the report: drawn once by matplotlib, shown as inline SVG in the page's colours, stored as PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softcam.reporting.wording import MINUS, estimate, number


class Ink(NamedTuple):
    """One colour of the report: how it looks on light paper and on a dark screen."""

    light: str
    dark: str


PALETTE: dict[str, Ink] = {
    "paper": Ink("#ffffff", "#13161b"),
    "ink": Ink("#1b1f27", "#e9ebef"),
    "muted": Ink("#59616e", "#a3abb8"),
    "rule": Ink("#d8dce2", "#363c46"),
    "softcam": Ink("#00776a", "#3fd0b9"),
    "black-box": Ink("#4b515c", "#b4bbc7"),
    "peer-1": Ink("#a8487f", "#e092bd"),
    "peer-2": Ink("#8a6d00", "#d9bb4a"),
    "peer-3": Ink("#3a6fb0", "#8ab8f0"),
    "peer-4": Ink("#a3522f", "#eba283"),
    "margin": Ink("#b3261e", "#ff8a80"),
    "random": Ink("#7b828d", "#8b929d"),
}
"""The colours of charts and page; no light colour repeats, so each can be found in an SVG and made a CSS variable."""

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    # Names of classes and files may hold dollar signs; they are text, never formulas.
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": PALETTE["ink"].light,
    "axes.edgecolor": PALETTE["muted"].light,
    "axes.labelcolor": PALETTE["muted"].light,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALETTE["rule"].light,
    "grid.linewidth": 0.6,
    "xtick.color": PALETTE["muted"].light,
    "ytick.color": PALETTE["muted"].light,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "softcam",
}
_SERIES = {"softcam": ("SoftCAM", "softcam", "-"), "black_box": ("black box", "black-box", "--")}
_PANEL = (4.6, 3.6)


@contextmanager
def chart_style() -> Iterator[None]:
    """Give matplotlib the report's style for the length of a `with` block or of a decorated function."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


@chart_style()
def roc_figure(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    binary: bool = True,
) -> Figure:
    """Draw receiver operating characteristics with their areas and the point at which each model is used.

    Args:
        curves: Per model ("softcam", "black_box") its `fpr` and `tpr`, in [0, 1].
        metrics: Per model its classification metrics (name -> `value`, `low`, `high`, `n`).
        binary: Whether there are two classes; with more, measures are means over classes and belong to no one point.
    """
    figure, axes = _square_figure(f"1 {MINUS} specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=PALETTE["random"].light, linewidth=1.0, linestyle=":", label="chance 0.500")
    for key, curve in _known(curves):
        title, ink, line = _SERIES[key]
        found = metrics.get(key) or {}
        area = f" {estimate(found['auroc'])}" if "auroc" in found else ""
        axes.plot(curve["fpr"], curve["tpr"], line, color=PALETTE[ink].light, label=title + area)
        if binary and {"sensitivity", "specificity"} <= found.keys():
            _mark(axes, 1 - found["specificity"]["value"], found["sensitivity"]["value"], ink)
    axes.legend(
        loc="lower right",
        title=f"{'area under the curve' if binary else 'mean area over classes'} (95 % interval)",
        title_fontsize=7.8,
        fontsize=7.8,
    )
    return settle(figure)


@chart_style()
def precision_recall_figure(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    prevalence: float | None = None,
) -> Figure:
    """Draw precision against recall with average precision and, where known, the level of chance.

    Args:
        curves: Per model its `recall` and `precision`, in [0, 1].
        metrics: Per model its classification metrics.
        prevalence: Share of the positive class among the test images; None with more than two classes.
    """
    figure, axes = _square_figure("recall (sensitivity)", "precision")
    if prevalence is not None:
        label = f"chance {number(prevalence)}"
        axes.axhline(prevalence, color=PALETTE["random"].light, linewidth=1.0, linestyle=":", label=label)
    for key, curve in _known(curves):
        title, ink, line = _SERIES[key]
        found = metrics.get(key) or {}
        area = f" {estimate(found['average_precision'])}" if "average_precision" in found else ""
        order = np.argsort(np.asarray(curve["recall"]), kind="stable")
        recall, precision = np.asarray(curve["recall"])[order], np.asarray(curve["precision"])[order]
        # Average precision is the area under steps, so steps are what is drawn.
        axes.step(recall, precision, line, where="pre", color=PALETTE[ink].light, label=title + area)
        if prevalence is not None and {"sensitivity", "precision"} <= found.keys():
            _mark(axes, found["sensitivity"]["value"], found["precision"]["value"], ink)
    axes.legend(loc="lower left", title="average precision (95 % interval)", title_fontsize=7.8, fontsize=7.8)
    return settle(figure)


@chart_style()
def calibration_figure(bins: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draw a reliability diagram with Wilson 95 % intervals over a histogram of the predictions.

    Args:
        bins: Per model a list of bins with `confidence` (mean prediction), `accuracy` (observed share) and `count`.
    """
    figure = Figure(figsize=_PANEL, layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    axes.plot([0, 1], [0, 1], color=PALETTE["random"].light, linewidth=1.0, linestyle=":", label="perfect")
    known = [(key, [row for row in rows if row["count"] > 0]) for key, rows in _known(bins)]
    for index, (key, rows) in enumerate(known):
        title, ink, line = _SERIES[key]
        x, y, count = (np.array([row[name] for row in rows]) for name in ("confidence", "accuracy", "count"))
        low, high = wilson_interval(y, count)
        reach = np.stack([np.maximum(y - low, 0.0), np.maximum(high - y, 0.0)])
        style = {"color": PALETTE[ink].light, "label": title, "linestyle": line}
        axes.errorbar(x, y, reach, marker="os"[index % 2], markersize=4, linewidth=1.4, elinewidth=0.9, **style)
        shift = (index - (len(known) - 1) / 2) * 0.02
        below.bar(x + shift, count, width=0.018, color=PALETTE[ink].light)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="observed share")
    axes.legend(loc="upper left", fontsize=7.8)
    below.set(xlabel="predicted probability", ylabel="images")
    return settle(figure)


@chart_style()
def noninferiority_figure(test: Mapping[str, Any]) -> Figure:
    """Draw the paired difference with its one-sided bound against the margin that was stated beforehand.

    Args:
        test: `difference` (SoftCAM minus black box), `low` (one-sided 97.5 % bound), `margin`, `passed`.
    """
    difference, low, margin = float(test["difference"]), float(test["low"]), float(test["margin"])
    start, end = 1.35 * min(-margin, low), 1.6 * max(difference, margin)
    figure = Figure(figsize=(7.2, 1.35), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(start, -margin, color=PALETTE["margin"].light, alpha=0.13, linewidth=0)
    axes.axvline(-margin, color=PALETTE["margin"].light, linewidth=1.2, linestyle="--")
    axes.axvline(0, color=PALETTE["muted"].light, linewidth=1.0)
    ink, step = PALETTE["softcam"].light, 0.006 * (end - start)
    # The test is one-sided: the line starts at the bound and has no upper end.
    axes.plot([low, end], [0, 0], color=ink, linewidth=2.2, solid_capstyle="butt")
    axes.plot([low], [0], marker="|", markersize=14, markeredgewidth=2.2, color=ink)
    axes.plot([difference], [0], marker="o", markersize=7, color=ink)
    axes.plot([end], [0], marker=">", markersize=8, color=ink, clip_on=False)
    axes.annotate(f"margin {number(-margin)}", (-margin + step, 0.82), va="center", fontsize=7.8)
    axes.annotate(f"bound {number(low, signed=True)}", (low + step, -0.7), va="center", fontsize=7.8)
    axes.annotate(number(difference, signed=True), (difference, 0.62), ha="center", va="center", fontsize=9.0)
    axes.set(xlim=(start, end), ylim=(-1.1, 1.25), yticks=[])
    axes.set_xlabel(f"difference SoftCAM {MINUS} black box (right: SoftCAM better)")
    axes.spines["left"].set_visible(False)
    return settle(figure)


@chart_style()
def locality_figure(context_swap: Mapping[str, Mapping[str, Any]], size: int) -> Figure:
    """Draw how much a cell's evidence changes if everything outside of a window around it is replaced.

    Args:
        context_swap: By side of the window in pixels, as text: `value`, `low`, `high`.
        size: Side of the network's input in pixels.
    """
    sides = sorted(map(int, context_swap))
    found = [context_swap[str(side)] for side in sides]
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    axes, ink = figure.subplots(), PALETTE["softcam"].light
    axes.axhline(1, color=PALETTE["random"].light, linewidth=1.0, linestyle=":")
    axes.annotate("as if all were replaced", (sides[0], 1), xytext=(0, 4), textcoords="offset points", fontsize=7.8)
    axes.fill_between(
        sides, [row["low"] for row in found], [row["high"] for row in found], color=ink, alpha=0.13, linewidth=0
    )
    axes.plot(sides, [row["value"] for row in found], color=ink, marker="o", markersize=4)
    top = max([1.15, *(1.05 * row["high"] for row in found)])
    axes.set(xlim=(0, size), ylim=(0, top), xlabel="side of the window kept, px", ylabel="change of the cell")
    return settle(figure)


def wilson_interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wilson 95 % interval of a binomial share.

    Args:
        share: Observed shares in [0, 1].
        count: Numbers of trials, positive.

    Returns:
        Lower and upper ends, in [0, 1], shaped like `share`.

    Reference:
        Wilson (1927), Journal of the American Statistical Association 22.
    """
    z = 1.959963984540054
    weight = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / weight
    half = z / weight * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def settle(figure: Figure) -> Figure:
    """Lay a figure out and fix the layout: it would move a little with every drawing, and SVG and PNG would differ."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


@chart_style()
def to_png(figure: Figure) -> bytes:
    """Render a figure on white paper at 200 dots per inch, with no date or program name in the file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


@chart_style()
def to_vector(figure: Figure) -> bytes:
    """Render a figure as an SVG file of its own on white paper: the same bytes for the same figure.

    Args:
        figure: The drawing.
    """
    stream = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", facecolor="white", metadata=metadata)
    return stream.getvalue()


@chart_style()
def to_svg(figure: Figure, name: str, *, alt: str) -> Markup:
    """Render a figure as an `<svg>` element for a page: its colours are CSS variables and its ids carry `name`.

    Args:
        figure: A figure drawn with the colours of `PALETTE`.
        name: Unique in the page; letters, digits and hyphens.
        alt: What the figure shows, for those who cannot see it.

    Returns:
        The same bytes for the same figure: no date, no program name, no random id.
    """
    stream = io.StringIO()
    figure.savefig(
        stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = _scope_ids(_use_variables(text), name)
    opening = re.match(r"<svg[^>]*>", text)
    box = re.search(r'viewBox="[^"]*"', text)
    if opening is None or box is None:
        raise ValueError(f"Expected `figure` to render as SVG with a viewBox, but {name!r} did not.")
    head = f'<svg class="chart" role="img" aria-labelledby="{name}-alt" {box[0]} xmlns="http://www.w3.org/2000/svg"'
    head += f' xmlns:xlink="http://www.w3.org/1999/xlink"><title id="{name}-alt">{escape(alt)}</title>'
    return Markup(head + text[opening.end() :])  # noqa: S704 - matplotlib escapes its text and `alt` is escaped here


def _use_variables(svg: str) -> str:
    for name, ink in PALETTE.items():
        svg = svg.replace(ink.light, f"var(--{name})")
    return re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", svg)


def _scope_ids(svg: str, name: str) -> str:
    # matplotlib numbers its groups alike in every figure; only ids that something points to are kept.
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", svg)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", svg)


def _square_figure(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_PANEL, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def _known(entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, entries[key]) for key in _SERIES if entries.get(key)]


def _mark(axes: Axes, x: float, y: float, ink: str) -> None:
    style: dict[str, Any] = {
        "color": PALETTE[ink].light,
        "markeredgecolor": PALETTE["paper"].light,
        "markeredgewidth": 1.0,
        "zorder": 5,
    }
    # Both models may share the point; the larger dot lies below.
    size = 9 if ink == "softcam" else 6
    axes.plot([x], [y], marker="o", markersize=size, linestyle="none", clip_on=False, **style)
