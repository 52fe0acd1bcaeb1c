from __future__ import annotations

import pytest

from softcam.reporting.wording import (
    DASH,
    MINUS,
    estimate,
    method_title,
    number,
    percent,
    raise_powers,
    scientific,
    span,
    split_name,
)


@pytest.mark.parametrize(
    ("value", "digits", "signed", "expected"),
    [
        (-0.01234, 3, False, f"{MINUS}0.012"),
        (0.5, 2, True, "+0.50"),
        (-0.0001, 3, True, "0.000"),
        (float("nan"), 3, False, DASH),
        (float("inf"), 3, False, DASH),
    ],
)
def test_number(value: float, digits: int, signed: bool, expected: str) -> None:
    assert number(value, digits, signed=signed) == expected


def test_missing_number_is_a_dash() -> None:
    assert number(None) == DASH


def test_scientific_drops_a_mantissa_of_one() -> None:
    assert scientific(1e-5) == "10⁻⁵"
    assert scientific(2.13e-7).split("\N{NO-BREAK SPACE}")[0] == "2.1"
    assert scientific(2.13e-7).endswith("10⁻⁷")
    assert scientific(0.0) == "0"
    assert scientific(float("nan")) == DASH


def test_powers_become_elements_and_the_rest_is_escaped() -> None:
    assert raise_powers("10⁻¹² <b>") == f"10<sup>{MINUS}12</sup> &lt;b&gt;"


def test_percent_and_its_digits() -> None:
    assert percent(0.8843) == "88.4\N{NO-BREAK SPACE}%"
    assert percent(0.8843, 0).startswith("88\N{NO-BREAK SPACE}")


def test_span_names_its_ends_with_a_word_where_one_is_negative() -> None:
    assert span(0.1, 0.2, 1) == f"0.1{DASH}0.2"
    assert span(-0.1, 0.2, 1) == f"{MINUS}0.1 to 0.2"


def test_estimate() -> None:
    assert estimate({"value": 0.9, "low": 0.8, "high": 0.95}, 2) == f"0.90 (0.80{DASH}0.95)"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("grad_cam", "Grad-CAM"),
        ("grad_cam@blocks.2", "Grad-CAM at blocks.2"),
        ("evidence:sparse", "SoftCAM evidence (sparse)"),
        ("evidence_margin:my_own@8:b", "SoftCAM margin (my_own@8:b)"),
        ("my_method", "my method"),
        ("my_method@a:b", "my method@a:b"),
    ],
)
def test_method_title(name: str, title: str) -> None:
    assert method_title(name) == title


def test_split_name_keeps_what_is_not_registered_whole() -> None:
    assert split_name("layer_cam@layer4.1") == ("layer_cam", "layer4.1", "")
    assert split_name("evidence:a@b") == ("evidence", "", "a@b")
    assert split_name("other@a:b") == ("other@a:b", "", "")
