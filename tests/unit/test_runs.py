from __future__ import annotations

from pathlib import Path

import pytest

from softcam.errors import RunError
from softcam.runs import RECORD, as_text, check_same_run, read_counts


def test_names_everything_that_differs(tmp_path: Path) -> None:
    check_same_run({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2}, tmp_path)
    with pytest.raises(RunError, match="its a, b differ"):
        check_same_run({"a": 1}, {"a": 2, "b": 2}, tmp_path)


def test_no_cell_is_a_formula() -> None:
    assert [as_text(cell) for cell in ("=1+1", "+a", "-a", "@a", "\ta", "a=1", "")] == [
        "'=1+1", "'+a", "'-a", "'@a", "'\ta", "a=1", "",
    ]  # fmt: skip


def test_counts_are_those_of_the_same_run_alone(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text('{"counts": {"done": 2}, "model": "a"}')
    assert read_counts(tmp_path, {"model": "a"}) == {"done": 2}
    with pytest.raises(RunError, match="its model differ"):
        read_counts(tmp_path, {"model": "b"})
    (tmp_path / RECORD).write_text("{}")
    with pytest.raises(RunError, match="cannot be read"):
        read_counts(tmp_path, {})
