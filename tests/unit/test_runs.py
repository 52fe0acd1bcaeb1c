from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import pytest

from softcam.errors import RunError
from softcam.runs import RECORD, as_text, awaited, check_same_run, hold, read_counts


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


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with hold(tmp_path / "new", "work.lock"):
        assert (tmp_path / "new" / "work.lock").is_file()
        with pytest.raises(RunError, match="another run is writing there"), hold(tmp_path / "new", "work.lock"):
            pytest.fail("it was held twice")
    assert list((tmp_path / "new").iterdir()) == []


def test_who_comes_second_waits_until_the_work_is_done(tmp_path: Path) -> None:
    order: list[str] = []
    began = Event()

    def follow() -> None:
        began.set()
        with awaited(tmp_path / "work.lock"):
            order.append("second")

    with awaited(tmp_path / "work.lock"):
        thread = Thread(target=follow)
        thread.start()
        began.wait()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []
