"""The curve of a sweep of places: what locality costs, and what it brings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softcam.metrics.glossary import measure
from softcam.reporting.figures import PALETTE, chart_style, settle
from softcam.sweep.result import PlaceRow, SweepResult

LOCALIZATION = ("pointing_game", "pixel_auroc", "activation_precision", "topk_precision")
PEERS = (("peer-3", "o"), ("peer-1", "s"), ("peer-2", "^"), ("peer-4", "D"))


@chart_style()
def places_figure(result: SweepResult) -> Figure:
    """Draw AUROC against the receptive field of a cell, and localisation where there is ground truth.

    Args:
        result: What a sweep found.
    """
    measured = [name for name in LOCALIZATION if any(name in row.localization for row in result.rows)]
    rows = sorted(result.rows, key=lambda row: row.receptive_field)
    figure = Figure(figsize=(4.2 * (1 + bool(measured)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + bool(measured), squeeze=False)[0]
    _draw_accuracy(axes[0], rows, result)
    if measured:
        _draw_localization(axes[1], rows, measured)
    return settle(figure)


def _draw_accuracy(axes: Axes, rows: Sequence[PlaceRow], result: SweepResult) -> None:
    fields = [row.receptive_field for row in rows]
    below = [row.difference - row.low for row in rows]
    bars: dict[str, Any] = {"color": PALETTE["softcam"].light, "marker": "o", "capsize": 3}
    axes.errorbar(fields, [row.auroc for row in rows], yerr=[below, [0.0] * len(rows)], **bars)
    axes.axhline(result.black_box, color=PALETTE["ink"].light, linewidth=0.9)
    axes.axhline(result.black_box - result.margin, color=PALETTE["margin"].light, linewidth=1.0, linestyle="--")
    chosen = result.chosen
    for row in rows:
        name = f"{row.place} (chosen)" if row is chosen else row.place
        axes.annotate(name, (row.receptive_field, row.auroc), xytext=(4, 5), textcoords="offset points", fontsize=7.8)
    axes.set_title("AUROC; black box, and less the margin", fontsize=8.5, loc="left", color=PALETTE["muted"].light)
    _label(axes)


def _draw_localization(axes: Axes, rows: Sequence[PlaceRow], names: Sequence[str]) -> None:
    for name, (ink, marker) in zip(names, PEERS, strict=False):
        fields, title = [row.receptive_field for row in rows], measure(name).title
        values = [row.localization.get(name, math.nan) for row in rows]
        axes.plot(fields, values, marker=marker, linewidth=1.2, color=PALETTE[ink].light, label=title)
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7.4)
    axes.set_title("Localisation on images with ground truth", fontsize=8.5, loc="left", color=PALETTE["muted"].light)
    _label(axes)


def _label(axes: Axes) -> None:
    axes.set_xlabel("px that hold half of what a cell depends on")
