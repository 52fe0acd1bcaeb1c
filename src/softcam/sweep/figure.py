"""The curve of a sweep: what locality costs, and what it brings."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softcam.metrics.glossary import measure
from softcam.sweep.result import PlaceRow, SweepResult

INK, MUTED, OURS, LIMIT = "#1b1f27", "#59616e", "#00776a", "#b3261e"
LOCALIZATION = ("pointing_game", "pixel_auroc", "activation_precision", "topk_precision")


def draw_sweep(result: SweepResult) -> bytes:
    """Return a PNG: AUROC against the receptive field of a cell, and localisation where there is ground truth."""
    measured = [name for name in LOCALIZATION if any(name in row.localization for row in result.rows)]
    rows = sorted(result.rows, key=lambda row: row.receptive_field)
    figure = Figure(figsize=(4.2 * (1 + bool(measured)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + bool(measured), squeeze=False)[0]
    _draw_accuracy(axes[0], rows, result)
    if measured:
        _draw_localization(axes[1], rows, measured)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=160)
    return stream.getvalue()


def _draw_accuracy(axes: Axes, rows: Sequence[PlaceRow], result: SweepResult) -> None:
    fields = [row.receptive_field for row in rows]
    below = [row.difference - row.low for row in rows]
    axes.errorbar(
        fields, [row.auroc for row in rows], yerr=[below, [0.0] * len(rows)], color=OURS, marker="o", capsize=3
    )
    axes.axhline(result.black_box, color=INK, linewidth=1)
    axes.axhline(result.black_box - result.margin, color=LIMIT, linewidth=1, linestyle="--")
    chosen = result.chosen
    for row in rows:
        name = f"{row.place} (chosen)" if row is chosen else row.place
        axes.annotate(name, (row.receptive_field, row.auroc), xytext=(4, 5), textcoords="offset points", fontsize=8)
    axes.set_title("AUROC; black box, and less the margin", fontsize=9, loc="left", color=MUTED)
    _finish(axes)


def _draw_localization(axes: Axes, rows: Sequence[PlaceRow], names: Sequence[str]) -> None:
    for name, marker in zip(names, "os^D", strict=False):
        fields, title = [row.receptive_field for row in rows], measure(name).title
        values = [row.localization.get(name, math.nan) for row in rows]
        axes.plot(fields, values, marker=marker, linewidth=1.2, label=title)
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7, frameon=False)
    axes.set_title("Localisation on images with ground truth", fontsize=9, loc="left", color=MUTED)
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.set_xlabel("px that hold half of what a cell depends on", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
