"""What values from a file may be: each function tells whether a value is of its kind."""

from __future__ import annotations

import json
import math
from collections.abc import Callable


def is_number(value: object) -> bool:
    """Return whether a value is a finite number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_json(value: object) -> bool:
    """Return whether a value is an object that JSON can hold."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return isinstance(value, dict)


def are_thresholds(value: object) -> bool:
    """Return whether a value is an object of probabilities in [0, 1]."""
    return isinstance(value, dict) and all(is_number(entry) and 0 <= entry <= 1 for entry in value.values())


def optional(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    """Return the same question, to which None is an answer as well."""
    return lambda value: value is None or holds(value)
