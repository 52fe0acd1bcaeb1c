"""Boxes around findings, as tables carry them."""

from __future__ import annotations

import json
import math

import numpy as np
from numpy.typing import NDArray


def parse_boxes(text: str) -> NDArray[np.float64]:
    """Read boxes, shape (B, 4): x, y, width, height in original pixels. An empty cell holds none.

    Args:
        text: A JSON list of lists of four numbers.

    Raises:
        ValueError: If it is anything else, or a box has no area or starts left of or above the image.

    Example:
        >>> parse_boxes("[[10, 20, 30, 40]]")
        array([[10., 20., 30., 40.]])
    """
    try:
        boxes = json.loads(text or "[]")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            "Expected `boxes` to be a JSON list of [x, y, width, height], but got something else."
        ) from error
    if not isinstance(boxes, list) or not all(_is_quadruple(box) for box in boxes):
        raise ValueError("Expected `boxes` to be a list of [x, y, width, height], but got another shape.")
    if not all(math.isfinite(value) for box in boxes for value in box):
        raise ValueError("Expected `boxes` to be finite, but got infinity or NaN.")
    if not all(x >= 0 and y >= 0 and width > 0 and height > 0 for x, y, width, height in boxes):
        raise ValueError("Expected `boxes` to have x and y >= 0 and width and height > 0, but got others.")
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _is_quadruple(box: object) -> bool:
    # bool is an int to Python, but true is not a length.
    return isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)
