from __future__ import annotations

import errno
import os
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

from softcam.errors import RunError
from softcam.runs import LOCK, RECORD, as_text, awaited, check_same_run, hold, lock, plain, read_counts, write_table


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
        with pytest.raises(RunError, match="is writing there"), hold(tmp_path / "new", "work.lock"):
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


def test_a_folder_is_held_by_one_and_named_to_the_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with hold(out):
        assert (out / LOCK).read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(
            RunError, match=rf"out to be free, but process {os.getpid()} on .*, since \d{{4}}.*Wait for"
        ):
            hold(out).__enter__()
        assert (out / LOCK).exists()
    assert list(out.iterdir()) == []
    with hold(out):
        pass


def test_what_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("process 1 on another, since long ago, with a longer name than the next one has")
    with hold(tmp_path):
        assert "another" not in (tmp_path / LOCK).read_text()


def test_a_lock_that_its_holder_removed_meanwhile_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock_and_lose(*arguments: Any) -> None:
        lock(*arguments)
        if (tmp_path / LOCK).exists() and not tries:
            (tmp_path / LOCK).unlink()
        tries.append(1)

    tries: list[int] = []
    monkeypatch.setattr("softcam.runs.lock", lock_and_lose)
    with hold(tmp_path):
        assert len(tries) == 2
        assert (tmp_path / LOCK).exists()


def test_errors_that_are_not_of_the_disk_pass_through_a_held_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="an input"), hold(tmp_path):
        raise FileNotFoundError("an input")
    with pytest.raises(RunError, match=r"but the disk is full\. Free some space"), hold(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "patient.png")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(RunError, match=r"file to take the results, but file exists\. Allow it"),
        hold(tmp_path / "file"),
    ):
        pass


def test_json_is_strict() -> None:
    values = {"a": np.array([1.0, np.inf]), "b": np.int64(3), "c": (None, "x", np.True_), "d": np.nan}
    assert plain(values) == {"a": [1.0, None], "b": 3, "c": [None, "x", True], "d": None}
    with pytest.raises(TypeError, match="Expected JSON values, but got object"):
        plain({"a": object()})


def test_a_table_has_no_index_and_the_same_line_ends_everywhere(tmp_path: Path) -> None:
    write_table(tmp_path / "deep" / "t.csv", pd.DataFrame({"image": ["a.png"], "n": [1]}, index=[7]))
    assert (tmp_path / "deep" / "t.csv").read_bytes() == b"image,n\na.png,1\n"
