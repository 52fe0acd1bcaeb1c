"""Numbers and sentences of the report: one way to write a value, an interval, a verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from softcam.attribution import METHODS

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
_TIMES = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"
_RAISED = dict(zip(map(ord, "-0123456789"), "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True))


class Measure(NamedTuple):
    """How a metric is called, which way is good, and what it means in one short sentence."""

    title: str
    direction: str
    meaning: str


MEASURES: dict[str, Measure] = {
    "auroc": Measure("AUROC", "higher", "chance that a positive image scores above a negative one"),
    "average_precision": Measure("Average precision", "higher", "mean precision over all levels of recall"),
    "accuracy": Measure("Accuracy", "higher", "share of images classified correctly"),
    "balanced_accuracy": Measure("Balanced accuracy", "higher", "mean over classes of the share found"),
    "sensitivity": Measure("Sensitivity", "higher", "share of positive images that are found"),
    "specificity": Measure("Specificity", "higher", "share of negative images that are left alone"),
    "precision": Measure("Precision", "higher", "share of alarms that are right"),
    "f1": Measure("F1", "higher", "harmonic mean of precision and sensitivity"),
    "brier": Measure("Brier score", "lower", "mean squared error of the probabilities"),
    "ece": Measure(
        "Calibration error",
        "lower",
        "mean gap between stated and observed probability; resampling sets its interval high",
    ),
    "deletion_area": Measure("Deletion", "lower", "area under the curve as the best patches are replaced"),
    "insertion_area": Measure("Insertion", "higher", "area under the curve as the best patches are shown"),
    "relative_drop": Measure("Probability left", "lower", "share that remains after the last deletion step"),
    "pointing_game": Measure("Pointing game", "higher", "share of maxima within 16 px (of 224) of a finding"),
    "pixel_auroc": Measure("Pixel AUROC", "higher", "chance that a pixel of a finding scores above another"),
    "activation_precision": Measure("Activation precision", "higher", "share of the positive evidence inside findings"),
    "topk_precision": Measure("Top-3 patches", "higher", "share of the three best patches that touch a finding"),
    "gini": Measure("Sparseness", "higher", "Gini index: 0 even, 1 all in one place"),
    "entropy": Measure("Entropy", "lower", "spread of the map, in nats"),
    "near_zero_share": Measure("Near zero", "higher", "share within 1 % of the strongest value"),
    "components": Measure("Components", "lower", "separate regions above half of the maximum"),
    "positive_share": Measure("Positive cells", "higher", "share of cells above 0 in the map of the image's own label"),
    "negative_share": Measure(
        "Negative cells", "higher", "share of cells below 0 in the second class's map, first class's images"
    ),
    "margin_positive_share": Measure(
        "Cells for the label", "higher", "share of cells whose evidence for the label outweighs that of its rival"
    ),
    "margin_negative_share": Measure(
        "Cells against the second class", "higher", "the same for images of the first of two classes"
    ),
}


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Write a number with a true minus sign; a missing value is a dash.

    >>> number(0.01234), number(0.5, 2, signed=True), number(-0.01) == MINUS + "0.010"
    ('0.012', '+0.50', True)
    """
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def scientific(value: float) -> str:
    """Write a small number as a power of ten.

    >>> scientific(1e-5), scientific(0.0)
    ('10⁻⁵', '0')
    """
    if not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(_RAISED)
    return power if mantissa == "1.0" else f"{mantissa.replace('-', MINUS)}{_TIMES}{power}"


def raise_powers(text: str) -> Markup:
    """Return text as HTML in which raised digits are `<sup>` elements: fonts draw these better than the characters.

    >>> str(raise_powers("10⁷ > 1"))
    '10<sup>7</sup> &gt; 1'
    """
    lowered = {raised: MINUS if plain == ord("-") else chr(plain) for plain, raised in _RAISED.items()}
    digits = "".join(lowered)
    return Markup(  # noqa: S704 - the text is escaped before marks are put around known characters
        re.sub(f"[{digits}]+", lambda found: f"<sup>{''.join(map(lowered.__getitem__, found[0]))}</sup>", escape(text))
    )


def percent(value: float, digits: int = 1) -> str:
    """Write a share as a percentage.

    >>> percent(0.8843).split()
    ['88.4', '%']
    """
    return f"{number(100 * value, digits)}\N{NO-BREAK SPACE}%"


def span(low: float, high: float, digits: int = 3) -> str:
    """Write an interval; with a negative end the dash gives way to a word.

    >>> span(0.871, 0.923).split(DASH), span(-0.012, 0.004).split()[1:]
    (['0.871', '0.923'], ['to', '0.004'])
    """
    joint = " to " if min(low, high) < 0 else DASH
    return f"{number(low, digits)}{joint}{number(high, digits)}"


def estimate(found: Mapping[str, Any], digits: int = 3) -> str:
    """Write a value with its interval.

    >>> estimate({"value": 0.9, "low": -0.1, "high": 0.923}).split(maxsplit=1)[0]
    '0.900'
    """
    return f"{number(found['value'], digits)} ({span(found['low'], found['high'], digits)})"


def measure(name: str, direction: str = "higher") -> Measure:
    """Return how a metric is written; what follows a known name is its variant, an unknown name is written as it is.

    >>> measure("deletion_area_blur").title, measure("new_one", "lower")
    ('Deletion, blur', Measure(title='new one', direction='lower', meaning=''))
    """
    if name in MEASURES:
        return MEASURES[name]
    stem = next((known for known in MEASURES if name.startswith(known + "_")), None)
    if stem is None:
        return Measure(name.replace("_", " "), direction, "")
    variant = name[len(stem) + 1 :].replace("_", " ")
    return MEASURES[stem]._replace(title=f"{MEASURES[stem].title}, {variant}", direction=direction)


def method_title(name: str) -> str:
    """Return how an attribution method is written; an unknown name is written as it is, without underscores."""
    return METHODS[name].title if name in METHODS else name.replace("_", " ")
