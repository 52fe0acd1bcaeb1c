"""Downloads as they arrive: folders, zip files, parts of them, and zip files inside folders."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from softcam.data import archives
from softcam.data.archives import Parts, list_members, list_packed, read_member, read_table
from softcam.errors import ImageError, ManifestError


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def cut(path: Path, size: int) -> list[Path]:
    """Cut a file into parts as 7-Zip does, and remove it."""
    content = path.read_bytes()
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    parts = [path.with_name(f"{path.name}.{number:03d}") for number in range(1, len(pieces) + 1)]
    for part, piece in zip(parts, pieces, strict=True):
        part.write_bytes(piece)
    path.unlink()
    return parts


def test_a_folder_and_its_zip_have_the_same_members(tmp_path: Path) -> None:
    (tmp_path / "plain/train").mkdir(parents=True)
    (tmp_path / "plain/train/a.jpeg").write_bytes(b"one")
    (tmp_path / "plain/labels.csv").write_bytes(b"x")
    archive = write_zip(tmp_path / "whole.zip", {"d/train/a.jpeg": b"one", "d/labels.csv": b"x"})
    plain, packed = list_members(tmp_path / "plain"), list_members(archive)
    assert [member.name for member in plain] == ["labels.csv", "train/a.jpeg"]
    assert [member.name for member in packed] == ["d/labels.csv", "d/train/a.jpeg"]
    assert [read_member(member) for member in plain] == [read_member(member) for member in packed] == [b"x", b"one"]
    assert [member.size for member in packed] == [1, 3]
    assert (plain[1].stem, plain[1].suffix, plain[1].parts) == ("a", ".jpeg", ("train", "a.jpeg"))


def test_archives_in_a_folder_count_as_folders_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    write_zip(tmp_path / "test.zip", {"1_left.jpeg": b"t", "__MACOSX/1_left.jpeg": b"no", ".hidden": b"no"})
    write_zip(tmp_path / "deep/more.zip", {"a/b.jpeg": b"m"})
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/x").write_bytes(b"no")
    assert [member.name for member in list_members(tmp_path)] == ["deep/a/b.jpeg", "test/1_left.jpeg"]


def test_an_unpacked_file_is_taken_rather_than_its_copy_in_the_archive(tmp_path: Path) -> None:
    write_zip(tmp_path / "train.zip", {"train/a.jpeg": b"old", "train/b.jpeg": b"b"})
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a.jpeg").write_bytes(b"new")
    members = list_members(tmp_path)
    assert [read_member(member) for member in members] == [b"new", b"b"]


@pytest.mark.parametrize("size", [7, 50, 10_000])
def test_parts_of_a_zip_file_are_read_as_one(tmp_path: Path, size: int) -> None:
    files = {f"train/{number}_left.jpeg": bytes([number]) * (50 + number) for number in range(20)}
    parts = cut(write_zip(tmp_path / "train.zip", files, zipfile.ZIP_STORED), size)
    for source in (tmp_path, parts[0]):
        members = list_members(source)
        assert {member.name: read_member(member) for member in members} == files


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    parts = cut(write_zip(tmp_path / "train.zip", {"a.jpeg": bytes(300)}, zipfile.ZIP_STORED), 100)
    parts[1].unlink()
    with pytest.raises(ManifestError, match=r"'train\.zip\.001' to be a whole zip file.*all of its parts"):
        list_members(tmp_path)


def test_parts_read_any_stretch(tmp_path: Path) -> None:
    for name, content in (("a", b"0123"), ("b", b""), ("c", b"456789")):
        (tmp_path / name).write_bytes(content)
    with Parts([tmp_path / name for name in "abc"]) as raw:
        stream = io.BufferedReader(raw, buffer_size=3)
        for start in range(11):
            for length in range(12):
                stream.seek(start)
                assert stream.read(length) == b"0123456789"[start : start + length]
        assert stream.seek(-2, io.SEEK_END) == 8
        assert stream.read() == b"89"
        assert raw.seek(3) == raw.tell() == 3
        assert raw.seek(1, io.SEEK_CUR) == 4
        with pytest.raises(ValueError, match="from 0 on, but got -1"):
            raw.seek(-11, io.SEEK_END)


def test_what_is_no_download_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="to exist, but nothing is there"):
        list_members(tmp_path / "absent")
    (tmp_path / "page.zip").write_bytes(b"<html>")
    with pytest.raises(ManifestError, match=r"'page\.zip' to be a whole zip file"):
        list_members(tmp_path)


def test_a_bad_member_has_a_reason_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_zip(tmp_path / "x.zip", {"secret/a.jpeg": b"content" * 40}, zipfile.ZIP_STORED)
    (member,) = list_members(archive)
    content = bytearray(archive.read_bytes())
    content[content.index(b"contentcontent") + 3] ^= 255
    archive.write_bytes(bytes(content))
    with pytest.raises(ImageError, match="damaged") as error:
        read_member(member)
    assert "secret" not in str(error.value)
    monkeypatch.setattr(archives, "MAX_BYTES", 4)
    (tmp_path / "big").write_bytes(b"12345")
    with pytest.raises(ImageError, match="larger than 4 bytes"):
        read_member(archives.Member("big", None, str(tmp_path / "big"), 5))
    with pytest.raises(ImageError, match="has gone"):
        read_member(archives.Member("gone", None, str(tmp_path / "gone"), 5))
    with pytest.raises(ImageError, match="gone from its archive"):
        read_member(archives.Member("gone", str(archive), "gone", 5))


def test_a_changed_archive_is_opened_anew(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"a": b"first"})
    assert read_member(list_members(archive)[0]) == b"first"
    write_zip(archive, {"b": b"second, longer"})
    assert read_member(list_members(archive)[0]) == b"second, longer"


def test_a_table_is_found_wherever_it_lies(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "in/labels.csv.zip", {"labels.csv": b"zipped"}).read_bytes()
    assert read_table(list_members(tmp_path / "in"), "Labels.csv") == b"zipped"
    whole = write_zip(tmp_path / "all.zip", {"labels.csv.zip": inner, "a.jpeg": b""})
    assert read_table(list_members(whole), "labels.csv") == b"zipped"
    (tmp_path / "in/labels.csv").write_bytes(b"plain")
    assert read_table(list_members(tmp_path / "in"), "labels.csv") == b"plain"
    assert read_table(list_members(tmp_path / "in"), "other.csv") is None


def test_a_table_that_cannot_be_chosen_or_read_is_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / "two" / folder).mkdir(parents=True)
        (tmp_path / "two" / folder / "labels.csv").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"labels\.csv once in the download, but got it as 'a/labels\.csv', 'b/lab"):
        read_table(list_members(tmp_path / "two"), "labels.csv")
    whole = write_zip(tmp_path / "all.zip", {"labels.csv.zip": b"no zip"})
    with pytest.raises(ManifestError, match=r"labels\.csv to be readable.*Download it again"):
        read_table(list_members(whole), "labels.csv")


def test_packed_archives_are_named(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "all.zip", {"train.zip": b"", "OCT.tar": b"", "labels.csv.zip": b"", "a.png": b""})
    assert list_packed(list_members(archive)) == ("all/OCT.tar", "all/train.zip")
