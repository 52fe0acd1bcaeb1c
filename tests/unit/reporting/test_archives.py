from __future__ import annotations

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from softcam.errors import ImageError
from softcam.reporting.archives import Archive, find_fault
from softcam.reporting.inputs import list_entries


def pack(path: Path, *, method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


def refusals(path: Path) -> dict[str, str]:
    return {entry.id: entry.refusal for entry in list_entries([path], exclude=Path("/nowhere"))}


def read(path: Path, index: int = 0, max_bytes: int = 1000) -> bytes:
    archive = Archive(path)
    return archive.read(archive.list_members()[index], max_bytes)


def test_members_are_listed_by_name_without_hidden_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("b.png", "sub/c.png", "a.png", ".hidden", "sub/.x/y", "__MACOSX/._a.png", "empty/"):
            archive.writestr(name, b"x")
    entries = list(list_entries([path], exclude=tmp_path / "out"))
    assert [entry.id for entry in entries] == ["a.png", "b.png", "sub/c.png"]
    assert [entry.member for entry in entries] == ["a.png", "b.png", "sub/c.png"]
    assert {entry.path for entry in entries} == {path}
    assert entries[0].read() == b"x"


def test_members_are_read_from_threads(tmp_path: Path) -> None:
    contents = {f"m{index:03d}": os.urandom(5000) for index in range(60)}
    archive = Archive(pack(tmp_path / "a.zip", **contents))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda member: archive.read(member, 5000), archive.list_members()))
    assert found == list(contents.values())


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", zeros=bytes(10_000_000))
    assert path.stat().st_size < 20_000
    assert len(read(path, max_bytes=10_000_000)) == 10_000_000
    with pytest.raises(ImageError, match="archive member unpacks to more than 9999999 bytes"):
        read(path, max_bytes=9_999_999)


def test_names_that_lead_out_are_refused_and_safe(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    names = ("../up.png", "/root.png", "a/../../b.png", "C:\\c.png", "..\\d.png", "fine.png")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    found = refusals(path)
    assert [fault for fault in found.values() if fault] == ["name that leads out of the archive"] * 5
    assert found["fine.png"] == ""
    for name in found:
        assert (tmp_path / "out" / name).resolve().is_relative_to(tmp_path / "out")


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert refusals(tmp_path / "a.zip") == {"link.png": "link in an archive, which is not followed"}
    assert find_fault(zipfile.ZipInfo("a/b.png")) == ""


def test_encrypted_members_are_named(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", secret=b"x" * 50)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # in the member's own header
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match="archive member is encrypted"):
        read(path)


def test_unknown_methods_are_named(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", packed=b"x" * 50)
    content = bytearray(path.read_bytes())
    content[8] = content[content.index(b"PK\x01\x02") + 10] = 99
    path.write_bytes(content)
    with pytest.raises(ImageError, match="archive member is packed in a way that is not supported"):
        read(path)


def test_damaged_members_are_named(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", method=zipfile.ZIP_STORED, packed=b"x" * 50)
    path.write_bytes(path.read_bytes().replace(b"xxxxx", b"xxyxx", 1))
    with pytest.raises(ImageError, match="archive member is damaged"):
        read(path)


def test_damaged_and_empty_archives_are_named(tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole.zip", a=b"x" * 500)
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:60])
    assert refusals(tmp_path / "cut.zip") == {"cut.zip": "archive is damaged"}
    assert refusals(pack(tmp_path / "empty.zip")) == {"empty.zip": "archive without files"}


def test_archives_are_opened_only_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inner = pack(tmp_path / "in" / "inner.zip", a=b"x")
    outer = tmp_path / "outer.zip"
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "inner.zip")
    reason = "zip archive, which is opened only where it is named itself"
    assert refusals(tmp_path / "in") == {"inner.zip": reason}
    assert refusals(outer) == {"inner.zip": reason}
    assert refusals(inner) == {"a": ""}


def test_the_content_decides_what_an_archive_is(tmp_path: Path) -> None:
    renamed = pack(tmp_path / "a.png", inside=b"x")
    assert refusals(renamed) == {"inside": ""}
    (tmp_path / "b.zip").write_bytes(b"text")
    assert refusals(tmp_path / "b.zip") == {"b.zip": ""}
