"""Faults are small, named, and programs; what nobody could notice is left alone."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mutmut", reason="mutmut comes with the extra `dev`")

SOURCE = '''\
"""A docstring with 1 + 1."""

from __future__ import annotations

from typing import Literal

Kind = Literal["a", "b"]
__all__ = ["double"]


@property
def double(value: int | None = 2) -> int:
    """Twice 1."""
    if value is None:
        raise ValueError("Expected a value, but got none.")
    return (
        value
        * 2
    )
'''


@pytest.fixture
def faults(load: Callable[[str], Any], tmp_path: Path) -> list[Any]:
    (tmp_path / "m.py").write_text(SOURCE)
    return list(load("mutants").list_mutants(tmp_path / "m.py", "m"))


def test_faults_are_made_in_code_alone(faults: list[Any]) -> None:
    assert [(fault.line, fault.before, fault.after) for fault in faults] == [
        (7, 'Kind = Literal["a", "b"]', "Kind = None"),
        (12, "2", "3"),
        (14, "is", "is not"),
        (15, 'ValueError("Expected a value, but got none.")', "ValueError(None)"),
        (17, "( value * 2 )", "( value / 2 )"),
        (18, "2", "3"),
    ]


def test_each_is_another_program(faults: list[Any]) -> None:
    written = [ast.dump(ast.parse(fault.write())) for fault in faults]
    assert len({*written, ast.dump(ast.parse(SOURCE))}) == len(faults) + 1


def test_the_statement_decides_which_tests_are_asked(load: Callable[[str], Any], faults: list[Any]) -> None:
    mutation = load("mutation")
    fault = next(fault for fault in faults if fault.after == "( value / 2 )")
    assert fault.lines == range(16, 20)
    lines = {str(fault.path): {1: [""], 18: ["tests/test_other.py::b", "tests/test_m.py::c"], 14: ["tests/a.py::x"]}}
    seconds = {"tests/test_other.py::b": 0.1, "tests/test_m.py::c": 2.0, "tests/a.py::x": 0.2}
    assert mutation.Tests(seconds, lines).choose(fault) == ["tests/test_m.py::c", "tests/test_other.py::b"]
    lines[str(fault.path)][16] = [""]
    assert mutation.Tests(seconds, lines).choose(fault) == [
        "tests/test_m.py::c", "tests/test_other.py::b", "tests/a.py::x",
    ]  # fmt: skip
    assert mutation.Tests(seconds, {}).choose(fault) == []
