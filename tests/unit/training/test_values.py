from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from softcam.errors import RecipeError
from softcam.training.values import above_zero, at_least, build, plain, require


@dataclass(frozen=True)
class Inner:
    number: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    word: Literal["a", "b"]
    parts: tuple[Inner, ...] = ()
    maybe: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def test_nested_values_become_dataclasses_and_come_back() -> None:
    values = {"word": "b", "parts": [{"number": 1}, {"number": 2, "share": 1}], "maybe": 2, "extra": {"x": [1]}}
    outer = build(Outer, values)
    assert outer == Outer("b", (Inner(1), Inner(2, 1.0)), 2.0, {"x": [1]})
    assert build(Outer, plain(outer)) == outer


def test_none_is_kept_where_it_is_allowed() -> None:
    assert build(Outer, {"word": "a", "maybe": None}).maybe is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"word": "c"}, "Expected `here.word` to be one of a, b, but got 'c'"),
        ({"word": "a", "parts": [{"number": "1"}]}, r"`here\.parts\[0\]\.number` to be of type int"),
        ({"word": "a", "wrod": 1}, r"Did you mean 'here\.word'"),
        ({"word": "a", "zzzzzz": 1}, "Known keys: word, parts, maybe, extra"),
        ({}, "Expected `here` to be complete"),
        ([], "Expected `here` to be a mapping, but got list"),
    ],
)
def test_wrong_values_name_their_place(values: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(Outer, values, where="here")


def test_bounds() -> None:
    assert at_least(0, 0)
    assert not at_least(-1e-9, 0)
    assert not at_least(float("inf"), 0)
    assert above_zero(1e-9)
    assert not above_zero(0)
    assert not above_zero(float("nan"))


def test_require_raises_only_if_unfit() -> None:
    require(True, "key", "good", 1)
    with pytest.raises(RecipeError, match="Expected `key` to be good, but got 'x'"):
        require(False, "key", "good", "x")
