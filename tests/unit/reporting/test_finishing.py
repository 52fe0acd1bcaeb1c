from __future__ import annotations

import errno
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import softcam.reporting.finishing as module
from softcam.errors import RunError
from softcam.files import StagedFile, stage
from softcam.reporting.finishing import AHEAD, Batch, Finisher
from softcam.reporting.journal import Row
from softcam.runs import say_what_the_disk_lacks


class Record:
    """A journal that notes what was there when a row came."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: list[str] = []
        self.limits: list[float | None] = []
        self.files: list[set[str]] = []
        self.fail = False
        self.calls = 0

    def append(self, batches: Sequence[tuple[Sequence[Row], float | None]]) -> None:
        if self.fail:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.calls += 1
        for rows, limit in batches:
            self.rows += [row.id for row in rows]
            self.limits.append(limit)
            self.files.append({path.name for path in self.out.rglob("*") if path.is_file()})


def batch(*names: str, limit: float | None = None) -> Batch:
    good: Any = [(name, None) for name in names]
    return Batch([Row(name, "ok", ()) for name in names], good, limit)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("softcam-write", "softcam-journal"))]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path)


def create(record: Record, write: Any, told: list[int] | None = None) -> Finisher:
    tell = (told if told is not None else []).append
    return Finisher(record, write, out=record.out, tell=tell)  # type: ignore[arg-type]


def test_rows_come_in_order_and_after_their_files(record: Record) -> None:
    def write(name: Any, _outcome: Any, _limit: Any) -> list[StagedFile]:
        time.sleep(0.02 if name in "ac" else 0)
        return [stage(record.out / name, name.encode())]

    told: list[int] = []
    with create(record, write, told) as finisher:
        for names in (("a", "b"), ("c",), ("d", "e", "f"), ("g",)):
            finisher.submit(batch(*names, limit=float(len(names))))
    assert record.rows == list("abcdefg")
    assert record.limits == [2.0, 1.0, 3.0, 1.0]
    assert told == [2, 1, 3, 1]
    assert all(set(record.rows[:count]) <= files for count, files in zip((2, 3, 6, 7), record.files, strict=True))
    assert not threads()


def test_every_folder_up_to_the_results_is_flushed_before_the_row(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[Path, int]] = []
    monkeypatch.setattr(module, "flush_folder", lambda folder: flushed.append((folder, len(record.rows))))
    out = record.out

    def write(name: Any, *_: Any) -> list[StagedFile]:
        return [stage(out / place / f"{name}.npz", b"") for place in ("evidence/sub", "overlays")]

    with create(record, write) as finisher:
        finisher.submit(batch("a", "b"))
    assert sorted(flushed) == [
        (folder, 0) for folder in (out, out / "evidence", out / "evidence/sub", out / "overlays")
    ]


def test_batches_that_are_written_meanwhile_are_noted_together(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(module, "flush_folder", lambda _: go.wait(10))
    with create(record, lambda name, *_: [stage(record.out / name, b"")]) as finisher:
        for name in "abcdef":
            finisher.submit(batch(name))
        time.sleep(0.1)
        go.set()
    assert record.rows == list("abcdef")
    assert record.calls == 2


def test_takes_no_more_than_it_may(record: Record) -> None:
    go, submitted = threading.Event(), []

    def write(*_: Any) -> list[StagedFile]:
        assert go.wait(10)
        return []

    def feed() -> None:
        with create(record, write) as finisher:
            for number in range(AHEAD + 2):
                finisher.submit(batch(str(number)))
                submitted.append(number)

    feeder = threading.Thread(target=feed)
    feeder.start()
    time.sleep(0.2)
    waiting = list(submitted)
    go.set()
    feeder.join(10)
    assert waiting == list(range(AHEAD))
    assert record.rows == [str(number) for number in range(AHEAD + 2)]


@pytest.mark.parametrize("bad", ["a", "b", "c"])
def test_after_an_error_nothing_more_is_noted(record: Record, bad: str) -> None:
    def write(name: Any, *_: Any) -> list[StagedFile]:
        time.sleep(0.01)
        if name == bad:
            raise OSError(errno.ENOSPC, "No space left on device")
        return [stage(record.out / name, b"")]

    def work() -> None:
        with create(record, write) as finisher:
            for name in "abcdef":
                finisher.submit(batch(name))

    with pytest.raises(OSError, match="No space left"):
        work()
    assert record.rows == list("abcdef"[: "abcdef".index(bad)])
    assert sorted(path.name for path in record.out.iterdir()) == record.rows
    assert not threads()


def test_a_journal_that_fails_is_loud(record: Record) -> None:
    record.fail = True

    def work() -> None:
        with create(record, lambda *_: []) as finisher:
            finisher.submit(batch("a"))

    with pytest.raises(OSError, match="No space left"):
        work()
    assert not threads()


def test_an_interruption_begins_nothing_new(record: Record) -> None:
    begun: list[str] = []

    def write(name: Any, *_: Any) -> list[StagedFile]:
        begun.append(name)
        time.sleep(0.2)
        return []

    def work() -> None:
        with create(record, write) as finisher:
            finisher.submit(batch(*"abcdefgh"))
            time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert len(begun) == 2
    assert record.rows == []
    assert not threads()


@pytest.mark.parametrize(
    ("number", "text", "message"),
    [
        (
            errno.ENOSPC,
            "No space left on device",
            r"take the results, but the disk is full\. Free some space; the same",
        ),
        (errno.EDQUOT, "Disk quota exceeded", "but the disk is full"),
        (
            errno.EACCES,
            "Permission denied",
            r"but permission denied\. Allow it, or choose another folder; the",
        ),
        (errno.EROFS, "Read-only file system", "but read-only file system"),
    ],
)
def test_says_what_the_disk_lacks_without_a_file_name(number: int, text: str, message: str) -> None:
    with pytest.raises(RunError, match=message) as caught, say_what_the_disk_lacks(Path("results")):
        raise OSError(number, text, "results/evidence/.doe_jane.0123abcd.partial.png")
    assert "doe_jane" not in str(caught.value)
    assert str(caught.value).startswith("Expected results ")


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), say_what_the_disk_lacks(Path("results")):
        raise KeyError("x")
