from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from softcam.reporting.inputs import Entry, Listing, Reading, list_entries, summarize
from softcam.reporting.stored import StoredFile


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def ids(*inputs: Path, exclude: Path = Path("/nowhere")) -> list[str]:
    return [entry.id for entry in list_entries(inputs, exclude=exclude)]


def test_folders_keep_relative_paths_in_a_fixed_order(tmp_path: Path) -> None:
    fill(tmp_path, "b.png", "a/z.png", "a/b/c.jpg", "c", "notes.txt")
    assert ids(tmp_path) == ["a/b/c.jpg", "a/z.png", "b.png", "c", "notes.txt"]


def test_hidden_files_and_the_output_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, ".git/x", ".DS_Store", "a.png", "out/evidence/a.png.npz")
    assert ids(tmp_path, exclude=tmp_path / "out") == ["a.png"]


def test_files_are_named_by_their_name_and_missing_ones_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, "a/b.png")
    assert ids(tmp_path / "a" / "b.png", tmp_path / "nothing.png") == ["b.png", "nothing.png"]


def test_the_order_of_the_inputs_is_kept(tmp_path: Path) -> None:
    fill(tmp_path, "b.png", "a.png")
    assert ids(tmp_path / "b.png", tmp_path / "a.png") == ["b.png", "a.png"]


def test_equal_names_never_collide(tmp_path: Path) -> None:
    fill(tmp_path, "1/x.png", "2/x.png", "3/X.PNG", "4/x~2.png")
    assert ids(*(tmp_path / n for n in "1234")) == ["x.png", "x~2.png", "X~3.PNG", "x~2~2.png"]


def test_composed_and_decomposed_names_never_collide(tmp_path: Path) -> None:
    found = ids(fill(tmp_path / "1", "\u00e9.png"), fill(tmp_path / "2", "e\u0301.png"))
    assert found == ["\u00e9.png", "e\u0301~2.png"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a:b.png", "a_b.png"),
        ("a\nb.png", "a_b.png"),
        ("a\\..\\b.png", "a_.._b.png"),
        ("con.png", "con.png_"),
        ("a.png ", "a.png _"),
        ("a.npz/b.png", "a.npz~/b.png"),
        ("a.PNG/b.png", "a.PNG~/b.png"),
        ("=1+1.png", "=1+1.png"),
    ],
)
def test_names_become_safe(tmp_path: Path, name: str, expected: str) -> None:
    assert ids(fill(tmp_path, name)) == [expected]


def test_a_hidden_file_that_is_named_gets_a_visible_id(tmp_path: Path) -> None:
    fill(tmp_path, ".a.0123abcd.partial.png")
    assert ids(tmp_path / ".a.0123abcd.partial.png") == ["_a.0123abcd.partial.png"]


def test_long_names_are_cut_and_stay_different(tmp_path: Path) -> None:
    fill(tmp_path, "\u00e4" * 120 + "1.png", "\u00e4" * 120 + "2.png")
    one, two = ids(tmp_path)
    assert one != two
    assert len(one.encode()) <= 180
    assert one.endswith(".png")


def test_names_that_are_no_text_become_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.png")).write_bytes(b"x")
    assert ids(tmp_path) == ["a_.png"]


def test_links_are_followed_only_within_the_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a.png", "sub/b.png")
    fill(tmp_path, "secret.png")
    (folder / "inside.png").symlink_to(folder / "a.png")
    (folder / "outside.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop").symlink_to(folder)
    (folder / "dangling.png").symlink_to(folder / "none")
    refusals = {entry.id: entry.refusal for entry in list_entries([folder], exclude=tmp_path / "out")}
    assert refusals == {
        "a.png": "",
        "dangling.png": "link that leads nowhere",
        "inside.png": "",
        "loop": "link to something else than a file, which is not followed",
        "outside.png": "link that leaves the folder",
        "sub/b.png": "",
    }


def test_pipes_in_folders_are_not_tried(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe")
    assert ids(tmp_path) == ["a.png"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a/x.png", "b.png")
    iterdir = Path.iterdir

    def refuse(self: Path) -> object:
        if self.name == "a":
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    entries = list(list_entries([tmp_path], exclude=tmp_path / "out"))
    assert [(entry.id, entry.refusal) for entry in entries] == [
        ("a", "cannot be read: permission denied"),
        ("b.png", ""),
    ]


def test_the_summary_counts_and_sees_every_change(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png")
    entries = list(list_entries([tmp_path], exclude=tmp_path / "out"))
    count, digest = summarize(entries)
    assert count == 2
    assert summarize(entries) == (2, digest)
    assert summarize(reversed(entries))[1] != digest
    assert summarize(entries[:1])[0] == 1
    assert summarize([entries[0], Entry("b.png", entries[1].file, "refused")])[1] != digest
    os.utime(tmp_path / "b.png", ns=(1, 1))
    assert summarize(entries)[1] != digest
    (tmp_path / "b.png").unlink()
    assert summarize(entries)[0] == 2


def test_files_are_opened_the_first_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "in", "a.png", "b/c.png", "d.png")
    with zipfile.ZipFile(folder / "inner.zip", "w") as archive:
        archive.writestr("x.png", b"x")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("y.png", b"y")
    listing = Listing([folder, tmp_path / "study.zip", folder / "a.png"], exclude=tmp_path / "out")
    first = [(entry.id, entry.refusal, entry.path) for entry in listing]
    opened: list[Path] = []
    monkeypatch.setattr(StoredFile, "inspect", lambda file: opened.append(file.path) or ("", 1))
    assert [(entry.id, entry.refusal, entry.path) for entry in listing] == first
    assert [name for name, *_ in first] == ["a.png", "b/c.png", "d.png", "inner.zip", "y.png", "a~2.png"]
    assert [bool(refusal) for _, refusal, _ in first] == [False, False, False, True, False, False]
    assert opened == []


def test_a_list_that_was_left_early_is_read_again(tmp_path: Path) -> None:
    with zipfile.ZipFile(fill(tmp_path, "a.png") / "z.zip", "w") as archive:
        archive.writestr("x.png", b"x")
    listing = Listing([tmp_path], exclude=tmp_path / "out")
    next(iter(listing))
    assert [bool(entry.refusal) for entry in listing] == [False, True]


@pytest.mark.parametrize("frames", [0, -1, "all", 1.5])
def test_refuses_frames_that_are_none(frames: Any) -> None:
    with pytest.raises(ValueError, match="`frames` to be 'each' or a whole number of at least 1"):
        Reading(frames)


def test_a_whole_reading_is_named_as_ever() -> None:
    assert Reading().arguments == {"frames": "each"}
    assert Reading(3, draft=True).arguments == {"frames": 3, "draft": True}
