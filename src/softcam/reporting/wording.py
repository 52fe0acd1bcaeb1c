"""Numbers and sentences of the report: one way to write a value, an interval, a verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from softcam.attribution import METHODS

MODELS = {"softcam": "SoftCAM", "black_box": "black box"}
"""The two models of every evaluation, by the key that its metrics use."""

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
_TIMES = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"
_RAISED = dict(zip(map(ord, "-0123456789"), "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True))


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


class MethodName(NamedTuple):
    """What the name of a method in an evaluation says.

    Args:
        base: The registered name; for a name that is not registered, all of it.
        layer: Dotted name of the module that the method looked at; empty for its own place.
        model: Name of the further SoftCAM model that was explained; empty for none.
    """

    base: str
    layer: str = ""
    model: str = ""


def split_name(name: str) -> MethodName:
    """Take the name of a method apart: `method@layer` or `method:model`.

    >>> split_name("grad_cam@blocks.2"), split_name("evidence:sparse").model
    (MethodName(base='grad_cam', layer='blocks.2', model=''), 'sparse')
    """
    head, _, model = name.partition(":")
    base, _, layer = head.partition("@")
    return MethodName(base, layer, model) if base in METHODS else MethodName(name)


def method_title(name: str) -> str:
    """Return how an attribution method is written; an unknown name is written as it is, without underscores.

    >>> method_title("grad_cam@blocks.2"), method_title("evidence:sparse")
    ('Grad-CAM at blocks.2', 'SoftCAM evidence (sparse)')
    """
    base, layer, model = split_name(name)
    if base not in METHODS:
        return name.replace("_", " ")
    return METHODS[base].title + (f" at {layer}" if layer else "") + (f" ({model})" if model else "")
