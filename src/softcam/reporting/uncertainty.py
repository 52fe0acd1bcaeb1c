"""What the report says about uncertainty: prediction sets beside what they promise, and selective prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from softcam.reporting.figures import PALETTE, chart_style, settle
from softcam.reporting.wording import DASH, MODELS, estimate, number, percent

_SCORES = {
    "lac": "every class that is probable enough",
    "aps": "the most probable classes, as many as the image is hard",
}
_INKS = {"softcam": ("softcam", "-"), "black_box": ("black-box", "--")}


@dataclass(frozen=True)
class UncertaintyView:
    """The calibration of a model and what was measured of it, ready to be shown.

    Args:
        temperature: What its logits are divided by.
        method: What is in a prediction set, in words; empty where there are none.
        calibrated_on: Images that the sets were chosen on; empty where there are none.
        rows: What was measured, its value and what was promised or expected.
        classes: Class, and how often its images have it in their set, with the interval and n.
    """

    temperature: str
    method: str = ""
    calibrated_on: str = ""
    rows: tuple[tuple[str, str, str], ...] = ()
    classes: tuple[tuple[str, str, str], ...] = ()


def uncertainty_view(metrics: Mapping[str, Any]) -> UncertaintyView | None:
    """Return what was found about the calibration of a model in words, or None if it has none.

    Args:
        metrics: What `metrics.json` holds.
    """
    found = metrics.get("uncertainty") or {}
    if found.get("temperature") is None:
        return None
    temperature = number(found["temperature"])
    error = ("Calibration error", estimate(metrics["classification"]["ece"]), "")
    sets = found.get("sets")
    if sets is None:
        return UncertaintyView(temperature, rows=(error,))
    size, expected = sets["size"], sets["expected"]
    range_text = f" ({number(expected[0])}{DASH}{number(expected[1])} for as many images)" if expected else ""
    rows = (
        ("Sets that hold the true class", estimate(sets["coverage"]), number(sets["target"]) + range_text),
        ("Classes in a set, mean", number(size["mean"]), ""),
        ("Sets of one class", percent(size["single"]), ""),
        ("Sets of several classes", percent(size["several"]), ""),
        ("Empty sets: no class is probable enough", percent(size["empty"]), ""),
        error,
    )
    classes = tuple((name, estimate(value), str(value["n"])) for name, value in sets["class_coverage"].items())
    return UncertaintyView(temperature, _SCORES[sets["method"]], str(sets["calibrated_on"]), rows, classes)


@chart_style()
def selective_figure(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the error among the images that are answered, against how many are.

    Args:
        curves: Per model ("softcam", "black_box") its `coverage` and `risk`, in [0, 1], and its `area`.
    """
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.subplots()
    highest = 0.0
    for key, (ink, line) in _INKS.items():
        if curve := curves.get(key):
            label = f"{MODELS[key]} {estimate(curve['area'])}"
            risk: Sequence[float] = curve["risk"]
            axes.step(curve["coverage"], risk, line, where="pre", color=PALETTE[ink].light, label=label)
            # Of the first few images alone, the share of errors is hardly a number.
            highest = max([highest, risk[-1], *(r for c, r in zip(curve["coverage"], risk, strict=True) if c >= 0.1)])
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.02 * (highest or 1), 1.15 * (highest or 1)))
    axes.set(xlabel="share of images answered, surest first", ylabel="share of these that are wrong")
    axes.legend(loc="upper left", title="area under the curve (95 % interval)", title_fontsize=7.8, fontsize=7.8)
    return settle(figure)


def describe_selective(curves: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what the figure shows in words."""
    parts = [f"{MODELS[key]} {estimate(curves[key]['area'])}" for key in _INKS if key in curves]
    listed = ", ".join(parts)
    return f"Share of wrong answers as more images are answered, surest first. Area with 95 % interval: {listed}."
