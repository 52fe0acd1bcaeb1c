from __future__ import annotations

import math

import pytest

from softcam.errors import MissingExtraError
from softcam.libraries import load_library


def test_present_library_is_returned() -> None:
    assert load_library("math", extra="peers") is math


def test_missing_library_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"'absent-one' to be installed. Run: pip install 'softcam\[peers\]'"):
        load_library("absent_one.part", extra="peers", package="absent-one")


def test_a_library_is_called_by_the_first_part_of_its_module() -> None:
    with pytest.raises(MissingExtraError, match=r"'absent_one' to be installed. Run: pip install 'softcam\[onnx\]'"):
        load_library("absent_one.part", extra="onnx")
