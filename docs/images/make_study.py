"""Draw the figures of the study from `benchmarks/results/study.json`: `python docs/images/make_study.py`.

One dot per method with its 95 % interval, best on top; SoftCAM's class maps in colour.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softcam.files import atomic_path
from softcam.metrics.glossary import measure
from softcam.reporting.methods import is_floor, is_own

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from study_tables import DECISIVE, title  # noqa: E402 - beside the other benchmarks

INK, MUTED, OURS, SPARSE, FLOOR = "#1b1f27", "#59616e", "#00776a", "#c25e00", "#b9bec7"


def main() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "study.json").read_text(encoding="utf-8"))
    for data, metrics in DECISIVE.items():
        save(draw_methods(result[data], metrics), f"study-{data}.png")


def save(figure: Figure, name: str) -> None:
    with atomic_path(Path(__file__).with_name(name)) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def draw_methods(study: dict[str, Any], metrics: Sequence[str]) -> Figure:
    """Return a panel per metric, each sorted for itself."""
    count = sum(not name.startswith("evidence_margin") for name in study["methods"]["broad"])
    figure = Figure(figsize=(13, 0.26 * count * 2 + 1.6), layout="constrained")
    for axes, metric in zip(figure.subplots(2, 2).ravel(), metrics, strict=True):
        draw_panel(axes, study, metric)
    return figure


def draw_panel(axes: Axes, study: dict[str, Any], metric: str) -> None:
    higher = study["directions"][metric] == "higher"
    rows = [
        (name, found[metric])
        for name, found in study["methods"]["broad"].items()
        if metric in found and not name.startswith("evidence_margin")
    ]
    rows.sort(key=lambda row: row[1]["value"] if higher else -row[1]["value"])
    for height, (name, found) in enumerate(rows):
        color = paint(name)
        low, high = (found[end] if found[end] is not None else found["value"] for end in ("low", "high"))
        axes.plot([low, high], [height, height], color=color, linewidth=1.6)
        axes.plot(found["value"], height, marker="o", markersize=4.5, color=color)
    axes.set_yticks(range(len(rows)), [title(name, study) for name, _ in rows], fontsize=7.5)
    for label, (name, _) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(paint(name) if is_own(name) else INK)
        label.set_fontweight("bold" if is_own(name) else "normal")
    arrow = "higher is better" if higher else "lower is better"
    axes.set_title(f"{measure(metric).title}, {arrow}", fontsize=9.5, loc="left", color=MUTED)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(axis="x", color="#e6e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)


def paint(name: str) -> str:
    """Return a method's colour."""
    if is_own(name):
        return SPARSE if name.endswith("_sparse") else OURS
    return FLOOR if is_floor(name) else MUTED


if __name__ == "__main__":
    main()
