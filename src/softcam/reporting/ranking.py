"""Methods in the order of one metric: a dot with its interval per method."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from softcam.metrics.glossary import measure
from softcam.reporting.figures import PALETTE, chart_style, settle
from softcam.reporting.methods import is_floor, is_own
from softcam.reporting.wording import method_title, number

_LONGEST = 34


@chart_style()
def ranking_figure(rows: pd.DataFrame, *, reference: str = "evidence") -> Figure:
    """Draw the methods in the order of one metric, the best one on top.

    Args:
        rows: The rows of one metric: `method,metric,direction,value,low,high`, each with a value.
        reference: The method whose value is drawn as a line through all others.
    """
    order = rank_methods(rows)
    figure = Figure(figsize=(4.6, 0.75 + 0.165 * len(order)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(order.to_dict("records")):
        name, color = str(row["method"]), PALETTE[_ink(str(row["method"]))].light
        axes.plot([row["low"], row["high"]], [place, place], color=color, linewidth=1.4, solid_capstyle="butt")
        mark: dict[str, Any] = {"marker": "o", "markersize": 5.5 if name == reference else 4, "color": color}
        axes.plot([row["value"]], [place], linestyle="none", **mark)
        if name == reference:
            axes.axvline(row["value"], color=color, linewidth=0.8, linestyle=":", zorder=0.5)
    names = [str(name) for name in order["method"]]
    axes.set_yticks(range(len(names)), [shorten(method_title(name)) for name in names], fontsize=7.6)
    for name, label in zip(names, axes.get_yticklabels(), strict=True):
        label.set_color(PALETTE[_ink(name)].light if is_own(name) or is_floor(name) else PALETTE["ink"].light)
    found = measure(str(rows["metric"].iloc[0]))
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=f"{found.title} ({rows['direction'].iloc[0]} is better)")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return settle(figure)


def rank_methods(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one metric that have a value, the best first, ties as they came.

    Args:
        rows: Columns `direction,value` at least.
    """
    known = rows[rows["value"].notna()]
    higher = len(known) > 0 and known["direction"].iloc[0] == "higher"
    return known.sort_values("value", ascending=not higher, kind="stable")


def describe_ranking(rows: pd.DataFrame) -> str:
    """Return the figure in words: the methods in order with their values.

    Args:
        rows: Columns `method,metric,direction,value`.
    """
    order = rank_methods(rows)
    listed = "; ".join(f"{method_title(str(row['method']))} {number(row['value'])}" for row in order.to_dict("records"))
    return f"{measure(str(rows['metric'].iloc[0])).title}, the best first: {listed}."


def shorten(text: str) -> str:
    """Return text with its middle left out where it is too long for a label.

    >>> shorten("x" * 40).index("…"), len(shorten("x" * 40))
    (22, 34)
    """
    return text if len(text) <= _LONGEST else f"{text[:22]}…{text[-11:]}"


def _ink(name: str) -> str:
    return "softcam" if is_own(name) else "random" if is_floor(name) else "black-box"
