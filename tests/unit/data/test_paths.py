"""Paths stay below their table."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcam.data.paths import create_path_check, normalize_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("data/images/a.png", "secret/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path / "data"


@pytest.mark.parametrize("text", ["images/a.png", "./images//a.png"])
def test_files_below_are_fine(root: Path, text: str) -> None:
    assert create_path_check(root)(text) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("/etc/passwd", "absolute path"),
        ("C:/a.png", "absolute path"),
        ("C:a.png", "absolute path"),
        ("\\\\server\\share\\a.png", "absolute path"),
        ("../secret/b.png", "'..' leads out"),
        ("images/../../secret/b.png", "'..' leads out"),
        ("images\\..\\a.png", "'..' leads out"),
        ("images\\a.png", "forward slashes"),
        ("a\0.png", "printable"),
        ("a\n.png", "printable"),
        ("absent.png", "nothing is there"),
        ("images", "something else"),
        ("x" * 5000, "cannot be looked up"),
    ],
)
def test_others_are_refused(root: Path, text: str, fault: str) -> None:
    assert fault in (create_path_check(root)(text) or "no fault")


def test_links_that_lead_out_are_refused(root: Path) -> None:
    (root / "link.png").symlink_to(root.parent / "secret" / "b.png")
    (root / "folder").symlink_to(root.parent / "secret")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "inner.png").symlink_to(root / "images" / "a.png")
    find_fault = create_path_check(root)
    assert "a link leads out" in (find_fault("link.png") or "")
    assert "a link leads out" in (find_fault("folder/b.png") or "")
    assert find_fault("loop.png") is not None
    assert find_fault("inner.png") is None


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    assert create_path_check(root.parent / "alias")("images/a.png") is None


def test_spellings_become_one() -> None:
    assert normalize_path("./images//a.png") == "images/a.png"
