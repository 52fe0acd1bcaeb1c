from __future__ import annotations

from pathlib import Path

import pytest

from softcam.errors import RunError
from softcam.reporting.journal import Row, open_journal

ROWS = [Row("a", "ok", ("x", "0.5"), digest="d"), Row("b", "failed", ("", ""), "file is empty")]
IDENTITY = {"model": {"fingerprint": "f"}, "arguments": {"overlays": True}}


def write(path: Path) -> Path:
    with open_journal(path) as journal:
        journal.start(IDENTITY)
        journal.append([(ROWS, None)])
        journal.append([(ROWS[:1], 0.1)])
    return path


def read(path: Path) -> tuple[list[Row], float | None]:
    with open_journal(path) as journal:
        journal.start(IDENTITY)
        return list(journal.rows()), journal.overlay_limit


def test_gives_back_what_was_appended(tmp_path: Path) -> None:
    assert read(write(tmp_path / "j")) == ([*ROWS, ROWS[0]], 0.1)


def test_batches_that_come_together_are_lines_of_their_own(tmp_path: Path) -> None:
    with open_journal(tmp_path / "j") as journal:
        journal.start(IDENTITY)
        journal.append([(ROWS, None), (ROWS[:1], 0.1)])
        assert journal.overlay_limit == 0.1
    assert (tmp_path / "j").read_bytes() == write(tmp_path / "k").read_bytes()


def test_any_torn_end_loses_that_batch_alone(tmp_path: Path) -> None:
    whole = write(tmp_path / "j").read_bytes()
    head, first, _ = (len(line) for line in whole.splitlines(keepends=True))
    for end in range(len(whole)):
        (tmp_path / "j").write_bytes(whole[:end])
        rows, _ = read(tmp_path / "j")
        assert rows == (ROWS if end >= head + first else [])


def test_appending_after_a_torn_end(tmp_path: Path) -> None:
    path = write(tmp_path / "j")
    path.write_bytes(path.read_bytes()[:-5])
    with open_journal(path) as journal:
        journal.start(IDENTITY)
        journal.append([(ROWS[1:], 2.0)])
    assert read(path) == ([*ROWS, ROWS[1]], 2.0)


def test_refuses_another_run(tmp_path: Path) -> None:
    path = write(tmp_path / "j")
    with open_journal(path) as journal, pytest.raises(RunError, match="but its model differ"):
        journal.start({**IDENTITY, "model": {"fingerprint": "g"}})


@pytest.mark.parametrize("line", [0, 1])
def test_refuses_damage_before_the_end(tmp_path: Path, line: int) -> None:
    lines = write(tmp_path / "j").read_bytes().splitlines(keepends=True)
    lines[line] = b"{]\n"
    (tmp_path / "j").write_bytes(b"".join(lines))
    with pytest.raises(RunError, match="it is damaged"):
        read(tmp_path / "j")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        open_journal(tmp_path / "j"),
        pytest.raises(RunError, match=r"but process \d+ on .* is writing there"),
        open_journal(tmp_path / "j"),
    ):
        pass
    with open_journal(tmp_path / "j"):
        pass
