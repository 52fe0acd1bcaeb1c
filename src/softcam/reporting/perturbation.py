"""Deletion and insertion curves: a few methods in colour, all others as thin grey lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softcam.reporting.figures import PALETTE, chart_style, settle
from softcam.reporting.methods import is_floor, is_own
from softcam.reporting.wording import method_title

MOST = 8
"""Methods drawn in colour."""

_OWN = ("-", "--", "-.")
_PEERS = (("peer-1", "-"), ("peer-2", "--"), ("peer-3", "-."), ("peer-4", (0, (5, 1, 1, 1, 1, 1))))

Curve = Literal["deletion", "insertion"]


@chart_style()
def perturbation_figure(curves: pd.DataFrame, curve: Curve) -> Figure:
    """Draw how the probability falls (deletion) or rises (insertion) with the best patches, one panel per fill.

    Args:
        curves: Columns `method,curve,fill,patches,fraction,probability,low,high,n`. Which methods are drawn in colour
            depends on both kinds of curves, so that the two figures agree.
        curve: Which of the two to draw.
    """
    rows = curves[curves["curve"] == curve]
    fills = list(dict.fromkeys(rows["fill"]))
    styles = method_styles(choose_methods(curves))
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    panels = figure.subplots(1, max(1, len(fills)), sharey=True, squeeze=False)[0]
    most = int(rows["n"].max()) if len(rows) else 0
    for axes, fill in zip(panels, fills, strict=False):
        lines = _split_lines(rows[rows["fill"] == fill])
        others = [line for method, line in lines.items() if method not in styles]
        for method in filter(lines.__contains__, styles):
            few = int(lines[method]["n"].max())
            title = method_title(method) + (f" (n = {few})" if few < most else "")
            # Many bands over each other are a haze.
            _draw_line(axes, lines[method], title, styles[method], band=not others or method == "evidence")
        _draw_others(axes, others)
        axes.set_title(f"fill: {fill.replace('_', ' ')}", fontsize=9.0, loc="left", color=PALETTE["muted"].light)
        axes.set_xlabel(f"share of the image {'replaced' if curve == 'deletion' else 'shown'}")
    panels[0].set_ylabel("mean probability of the target")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))), fontsize=7.8)
    return settle(figure)


def choose_methods(curves: pd.DataFrame) -> tuple[str, ...]:
    """Return the methods to be drawn in colour: all of them if they are at most `MOST`.

    Otherwise the evidence, two more of SoftCAM's own maps, other models' evidence first, the post-hoc methods whose
    deletion or insertion curves have the best mean height, in turn, and the random map.

    Args:
        curves: Columns `method,curve,probability` at least.
    """
    methods = tuple(dict.fromkeys(map(str, curves["method"])))
    if len(methods) <= MOST:
        return methods
    own = sorted(filter(is_own, methods), key=lambda name: (name != "evidence", not name.startswith("evidence:")))
    floor = [name for name in methods if name == "random"]
    chosen = own[: len(_OWN)]
    room = min(len(_PEERS), MOST - len(chosen) - len(floor))
    return (*chosen, *rank_post_hoc(curves)[:room], *floor)


def rank_post_hoc(curves: pd.DataFrame) -> list[str]:
    """Return the post-hoc methods, those with the lowest deletion and the highest insertion curves in turn.

    Args:
        curves: Columns `method,curve,probability` at least.
    """
    orders = []
    for curve, ascending in (("deletion", True), ("insertion", False)):
        rows = curves[curves["curve"] == curve]
        heights = rows.groupby("method", sort=False)["probability"].mean().dropna()
        ranked = map(str, heights.sort_values(ascending=ascending, kind="stable").index)
        orders.append([name for name in ranked if not is_own(name) and not is_floor(name)])
    return [name for name in dict.fromkeys(chain.from_iterable(zip_longest(*orders))) if name is not None]


def method_styles(methods: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Give each method a colour name of `PALETTE` and a line style, so that neither alone has to tell them apart.

    >>> method_styles(["grad_cam", "evidence", "random"])["evidence"]
    ('softcam', '-')
    """
    fixed: dict[str, tuple[str, Any]] = {
        "evidence": ("softcam", "-"),
        "evidence_margin": ("softcam", "--"),
        "random": ("random", ":"),
    }
    styles = {method: fixed[method] for method in methods if method in fixed}
    free = [dashes for dashes in (*_OWN, (0, (1, 1))) if ("softcam", dashes) not in styles.values()]
    own = [method for method in methods if is_own(method) and method not in fixed]
    styles |= {method: ("softcam", free[index % len(free)]) for index, method in enumerate(own)}
    peers = [method for method in methods if method not in styles]
    styles |= {method: _PEERS[index % len(_PEERS)] for index, method in enumerate(peers)}
    return {method: styles[method] for method in methods}


def _split_lines(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(method): line.sort_values("patches") for method, line in rows.groupby("method", sort=False)}


def _draw_others(axes: Axes, lines: Sequence[pd.DataFrame]) -> None:
    style: dict[str, Any] = {"color": PALETTE["muted"].light, "linewidth": 0.7, "alpha": 0.4, "zorder": 1.5}
    for index, line in enumerate(lines):
        label = "_" if index else f"{len(lines)} other method{'s' if len(lines) > 1 else ''}"
        axes.plot(line["fraction"], line["probability"], label=label, **style)


def _draw_line(axes: Axes, line: pd.DataFrame, title: str, style: tuple[str, Any], *, band: bool) -> None:
    color, dashes = PALETTE[style[0]].light, style[1]
    width = 2.4 if style == ("softcam", "-") else 1.4
    if band:
        axes.fill_between(line["fraction"], line["low"], line["high"], color=color, alpha=0.09, linewidth=0)
    axes.plot(line["fraction"], line["probability"], color=color, linestyle=dashes, linewidth=width, label=title)
