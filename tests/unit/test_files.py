from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from softcam.files import (
    atomic_files,
    atomic_folder,
    atomic_path,
    digest_file,
    flush_folder,
    publish,
    stage,
    write_atomic,
)


@pytest.mark.parametrize(
    ("content", "stored"), [(b"\x00\xff", b"\x00\xff"), ("Zür\nich", "Zür\nich".encode()), ("", b"")]
)
def test_content_is_written(tmp_path: Path, content: bytes | str, stored: bytes) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, content)
    assert path.read_bytes() == stored
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]


def test_the_folder_is_made(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x" / "y" / "a.txt", "text")
    assert (tmp_path / "x" / "y" / "a.txt").read_text() == "text"


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "a long first text")
    write_atomic(path, "second")
    assert path.read_text() == "second"


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".csv"
        assert temporary != path
    assert path.read_text() == "new"
    assert not temporary.exists()


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_file_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("rename"), replace(self, target))[1])
    write_atomic(tmp_path / "a.txt", "text")
    assert events == ["fsync", "rename", "fsync"]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder with one old file, alone in its parent."""
    folder = tmp_path / "parent" / "model"
    folder.mkdir(parents=True)
    (folder / "old.txt").write_text("old")
    return folder


def read(parent: Path) -> dict[str, str]:
    return {path.relative_to(parent).as_posix(): path.read_text() for path in parent.rglob("*") if path.is_file()}


def test_a_folder_appears_whole_under_parents_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "x" / "model"
    with atomic_folder(path) as new:
        assert (new.parent, list(new.iterdir())) == (path.parent, [])
        (new / "a.txt").write_text("a")
        assert not path.exists()
    assert read(tmp_path) == {"x/model/a.txt": "a"}


def test_an_old_folder_stays_until_the_new_one_replaces_it(stored: Path) -> None:
    with atomic_folder(stored) as new:
        (new / "a.txt").write_text("new")
        assert (stored / "old.txt").read_text() == "old"
    assert read(stored.parent) == {"model/a.txt": "new"}
    assert [child.name for child in stored.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_folder_alone(stored: Path, error: type[BaseException]) -> None:
    def write_half() -> None:
        with atomic_folder(stored) as new:
            (new / "a.txt").write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert read(stored.parent) == {"model/old.txt": "old"}
    assert [child.name for child in stored.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("fails", [1, 2])
def test_both_folders_are_whole_whichever_rename_is_the_last(
    stored: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    rename, seen = Path.rename, []

    def look_then_fail(self: Path, target: Path) -> Path:
        # What a process that is killed here would leave behind.
        seen.append(sorted(read(stored.parent).values()))
        if len(seen) == fails:
            raise OSError("interrupted")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look_then_fail)
    with pytest.raises(OSError, match="interrupted"), atomic_folder(stored) as new:
        (new / "a.txt").write_text("new")
    assert seen[:fails] == [["new", "old"]] * fails
    assert read(stored.parent) == {"model/old.txt": "old"}


def test_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    assert digest_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(os.urandom(3_000_000))
    assert digest_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What is flushed: a file or the folder, and whether `a.txt` had its name by then."""
    seen: list[tuple[str, bool]] = []

    def note(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append(("folder" if name == tmp_path.name else "file", (tmp_path / "a.txt").exists()))

    monkeypatch.setattr(os, "fsync", note)
    return seen


def test_the_content_is_flushed_before_the_name_and_then_the_folder(
    tmp_path: Path, flushed: list[tuple[str, bool]]
) -> None:
    write_atomic(tmp_path / "a.txt", "text")
    assert flushed == [("file", False), ("folder", True)]


def test_staged_files_get_their_names_when_all_are_flushed(tmp_path: Path, flushed: list[tuple[str, bool]]) -> None:
    files = [stage(tmp_path / name, name.encode()) for name in ("a.txt", "b.txt", "c.txt")]
    assert flushed == []
    files[2].discard()
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    publish(files[:2])
    assert flushed == [("file", False)] * 2
    assert read(tmp_path) == {"a.txt": "a.txt", "b.txt": "b.txt"}
    files[0].discard()  # has its name, and stays
    flush_folder(tmp_path)
    assert flushed[-1] == ("folder", True)
    assert read(tmp_path) == {"a.txt": "a.txt", "b.txt": "b.txt"}


def test_a_file_that_cannot_be_staged_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        stage(tmp_path / "new" / "a.txt", "text")  # type: ignore[arg-type]
    assert list((tmp_path / "new").iterdir()) == []


KILLED = """
import os, sys
from pathlib import Path
from softcam.files import atomic_files
with atomic_files(Path(sys.argv[1])) as folder:
    (folder / "a.onnx").write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    with atomic_files(path) as theirs:
        assert not left.exists()
        with atomic_folder(path) as mine:
            assert theirs.is_dir()
            (mine / "model").touch()
    assert (path / "model").exists()
    assert [child.name for child in tmp_path.iterdir()] == ["a.onnx"]
