"""The picture of a search: AUROC against sparsity, and what a stronger penalty does to the maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softcam.metrics.glossary import measure
from softcam.reporting.figures import PALETTE, chart_style, settle
from softcam.sweep.selection import SearchResult, TrialRow

FORMS = (("softcam", "o"), ("peer-3", "s"), ("peer-1", "^"), ("peer-4", "D"), ("peer-2", "v"))
"""Colour and mark of each form; more than five take turns."""

SHOWN = ("deletion_area_blur", "topk_precision", "deletion_area_mean")
"""Drawn against l1 beside the sparsity: the first two that there are."""


@chart_style()
def pareto_figure(result: SearchResult) -> Figure:
    """Draw AUROC against sparsity with the front and the choice, and sparsity and other measures against l1.

    Args:
        result: What a search found.
    """
    forms = group_forms(result)
    others = [name for name in SHOWN if any(name in row.values for row in result.rows)][:2]
    small = 1 + len(others)
    figure = Figure(figsize=(4.6 + 2.1 * small, 3.6), layout="constrained")
    panels = figure.subplots(1, 1 + small, width_ratios=(2.2, *[1.0] * small), squeeze=False)[0]
    _draw_front(panels[0], result, forms)
    for axes, name in zip(panels[1:], (result.sparsity, *others), strict=True):
        _draw_strengths(axes, result, forms, name)
    return settle(figure)


def group_forms(result: SearchResult) -> dict[str, list[TrialRow]]:
    """Return the rows by what differs beside their strengths, weak penalties first.

    Args:
        result: What a search found.
    """
    forms: dict[str, list[TrialRow]] = {}
    for row in sorted(result.rows, key=lambda row: (row.point.l2, row.point.l1)):
        forms.setdefault(", ".join(result.describe_form(row)), []).append(row)
    return forms


def _draw_front(axes: Axes, result: SearchResult, forms: Mapping[str, Sequence[TrialRow]]) -> None:
    sparsity, chosen = result.sparsity, result.chosen
    line: dict[str, Any] = {"color": PALETTE["muted"].light, "linewidth": 1.0, "zorder": 1.5}
    axes.plot([row.values[sparsity] for row in result.front], [row.auroc for row in result.front], **line)
    floor = result.reference.auroc - result.margin
    axes.axhline(result.reference.auroc, color=PALETTE["ink"].light, linewidth=0.9)
    axes.axhline(floor, color=PALETTE["margin"].light, linewidth=1.0, linestyle="--")
    edge: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "textcoords": "offset points",
        "fontsize": 7.4,
        "ha": "right",
    }
    axes.annotate("best dense model", (1, result.reference.auroc), xytext=(0, 3), **edge)
    axes.annotate(f"less the margin of {result.margin:g}", (1, floor), xytext=(0, 3), **edge)
    for number, (form, rows) in enumerate(forms.items()):
        ink, mark = FORMS[number % len(FORMS)]
        color = PALETTE[ink].light
        for row in rows:
            at, bound = row.values[sparsity], result.reference.auroc + row.low
            axes.plot([at, at], [bound, row.auroc], color=color, linewidth=1.0, alpha=0.55)
            fill = color if row.not_inferior else PALETTE["paper"].light
            label = form if form and row is rows[0] else None
            axes.plot([at], [row.auroc], mark, color=color, markerfacecolor=fill, markersize=5.5, label=label)
            text = "dense" if row.point.is_dense else _short(row.point.l1)
            axes.annotate(text, (at, row.auroc), xytext=(5, 4), textcoords="offset points", fontsize=7.2)
    if chosen is not None:
        ring: dict[str, Any] = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": PALETTE["ink"].light}
        axes.plot([chosen.values[sparsity]], [chosen.auroc], "o", label="chosen", **ring)
    if not all(row.not_inferior for row in result.rows):
        hollow: dict[str, Any] = {"markersize": 5.5, "markerfacecolor": PALETTE["paper"].light}
        axes.plot([], [], "o", color=PALETTE["muted"].light, label="open: not shown not inferior", **hollow)
    axes.set(xlabel=f"{measure(sparsity).title} of the maps (right: sparser)", ylabel="AUROC, validation")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower left", fontsize=7.4)


def _draw_strengths(axes: Axes, result: SearchResult, forms: Mapping[str, Sequence[TrialRow]], name: str) -> None:
    """Draw a metric against l1, whose axis is logarithmic; the dense model stands left of the weakest."""
    positive = [row.point.l1 for row in result.rows if row.point.l1 > 0]
    dense = min(positive, default=1.0) / 10
    for number, rows in enumerate(forms.values()):
        ink, mark = FORMS[number % len(FORMS)]
        strengths = [row.point.l1 or dense for row in rows]
        values = [row.values.get(name, math.nan) for row in rows]
        axes.plot(strengths, values, f"{mark}-", color=PALETTE[ink].light, markersize=4, linewidth=1.0)
    found = measure(name, "lower" if name.startswith("deletion") else "higher")
    axes.set_xscale("log")
    # Powers would be drawn as formulas, which the style does not allow.
    decades = [
        10.0**power for power in range(math.ceil(math.log10(dense)) + 1, 3) if 10.0**power <= max(positive or [1])
    ]
    ticks = decades[:: max(1, math.ceil(len(decades) / 3))]
    axes.set_xticks([dense, *ticks], ["dense", *(_short(tick) for tick in ticks)], fontsize=7.2)
    axes.minorticks_off()
    axes.set_title(f"{found.title}\n({found.direction} is better)", fontsize=8.2, loc="left")
    axes.set_xlabel("l1")


def _short(strength: float) -> str:
    """Write a strength as people type it.

    >>> _short(3e-05), _short(0.00123), _short(1.0)
    ('3e-5', '1.23e-3', '1')
    """
    if strength >= 0.01:
        return f"{strength:g}"
    digits, _, power = f"{strength:e}".partition("e")
    return f"{float(digits):g}e{int(power)}"
