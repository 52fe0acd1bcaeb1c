"""Boxes: what is read and what is refused."""

from __future__ import annotations

import pytest

from softcam.data.boxes import parse_boxes


def test_boxes_are_read() -> None:
    assert parse_boxes("[[1, 2, 3.5, 4], [0, 0, 1, 1]]").tolist() == [[1, 2, 3.5, 4], [0, 0, 1, 1]]


@pytest.mark.parametrize("text", ["", "[]"])
def test_no_boxes_are_an_empty_array(text: str) -> None:
    assert parse_boxes(text).shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4", "JSON list"),
        ("[" * 100_000, "JSON list"),
        ('{"x": 1}', "another shape"),
        ("[1, 2, 3, 4]", "another shape"),
        ("[[1, 2, 3]]", "another shape"),
        ('[[1, 2, 3, "4"]]', "another shape"),
        ("[[1, 2, 3, true]]", "another shape"),
        ("[[1, 2, 3, NaN]]", "finite"),
        ("[[1, 2, 3, Infinity]]", "finite"),
        ("[[-0.1, 2, 3, 4]]", "x and y >= 0"),
        ("[[1, -1, 3, 4]]", "x and y >= 0"),
        ("[[1, 2, 0, 4]]", "width and height > 0"),
        ("[[1, 2, 3, 0]]", "width and height > 0"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_boxes(text)
