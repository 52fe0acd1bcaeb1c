"""Labels: names, numbers, flags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from softcam.data.labels import check_flags, check_labels, find_class, infer_classes, read_whole
from softcam.data.tables import ImageTable


def _table(**columns: list[str]) -> ImageTable:
    rows = np.arange(2, 2 + len(next(iter(columns.values()))))
    return ImageTable(pd.DataFrame(columns), Path(), rows=rows)


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", 2), ("2.0", 2), ("-1", -1), ("1e2", 100), ("2.5", None), ("", None), ("x", None), ("inf", None)],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert read_whole(text) == number


def test_classes_are_inferred_in_the_natural_order() -> None:
    assert infer_classes(["2", "10", "1.0", "1", ""]) == ("1", "2", "10")
    assert infer_classes(["b", "a", "", "1"]) == ("1", "a", "b")
    assert infer_classes([]) == ()


def test_a_name_wins_over_a_number() -> None:
    assert find_class("1", ("1", "2")) == 0
    assert find_class("1", ("a", "b")) == 1
    assert find_class("2.0", ("0", "1", "2")) == 2
    assert find_class("-1", ("a", "b")) is None
    assert find_class("2", ("a", "b")) is None
    assert find_class("", ("a", "b")) is None


def test_unknown_labels_are_named_with_the_closest_class() -> None:
    table = _table(label=["defect", "defct", "", "7"])
    assert list(check_labels(table, ("intact", "defect"))) == [
        "row 3: expected `label` to be one of ['intact', 'defect'], but got 'defct'. Did you mean 'defect'?",
        "row 4: expected `label` to be one of ['intact', 'defect'], but got an empty cell.",
        "row 5: expected `label` to be one of ['intact', 'defect'], but got '7'.",
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "a"], "Expected at least two classes, but the labels hold ['a']"),
        (["0", "2"], "Expected whole-number labels to be 0, 1, … without gaps, but got ['0', '2']"),
        (["1", "2"], "Expected whole-number labels to be 0, 1, … without gaps, but got ['1', '2']"),
    ],
)
def test_labels_that_do_not_say_all_classes_ask_for_them(labels: list[str], message: str) -> None:
    (problem,) = check_labels(_table(label=labels), None)
    assert problem.startswith(message)
    assert "`classes`" in problem


def test_flags_are_0_or_1() -> None:
    table = _table(x=["0", "1.0", "2"], y=["", "0", "yes"])
    assert list(check_flags(table, ("x", "y", "absent"))) == [
        "row 4: expected `x` to be 0 or 1, but got '2'.",
        "row 2: expected `y` to be 0 or 1, but got an empty cell.",
        "row 4: expected `y` to be 0 or 1, but got 'yes'.",
    ]


def test_a_label_that_would_be_two_is_refused() -> None:
    (said,) = check_flags(_table(**{"a; b": ["0", "1"]}), ("a; b",))
    assert "without `;`, which parts several of them, but got 'a; b'" in said
