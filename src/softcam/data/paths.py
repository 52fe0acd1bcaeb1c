"""Paths that a table may name: below its own folder, however they are spelled and wherever links lead."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

IMAGE_SUFFIXES = frozenset({".bmp", ".dcm", ".dicom", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def create_path_check(root: Path) -> Callable[[str], str | None]:
    """Return a function that says what a path should have been, or None if it is a file below `root`.

    Args:
        root: The folder that no path may leave. Each folder below it is looked up once.
    """
    real_root = Path(os.path.realpath(root))

    @functools.cache
    def stays_inside(path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(real_root)

    def find_fault(text: str) -> str | None:
        fault = _find_spelling_fault(text)
        if fault is not None:
            return fault
        path = root / text
        try:
            if not stays_inside(path.parent) or (path.is_symlink() and not stays_inside(path)):
                return "in the manifest's folder, but a link leads out of it. Put the file itself there"
            return None if path.is_file() else "a file, but nothing is there or it is something else"
        except OSError:
            return "a file, but it cannot be looked up"

    return find_fault


def _find_spelling_fault(text: str) -> str | None:
    # Windows' rules refuse what POSIX's refuse and more, so that a table is as safe on either.
    path = PureWindowsPath(text)
    if path.drive or path.root:
        return "relative to the manifest's folder, but got an absolute path. Put the file below that folder"
    if ".." in path.parts:
        return "in the manifest's folder, but '..' leads out of it. Put the file below that folder"
    if "\\" in text or not text.isprintable():
        return "written with forward slashes and printable letters, but got others"
    return None


def normalize_path(text: str) -> str:
    """Return the one spelling of a relative path.

    Args:
        text: A relative path.

    Example:
        >>> normalize_path("images//./a.png")
        'images/a.png'
    """
    return PurePosixPath(text).as_posix()
