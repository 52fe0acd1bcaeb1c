"""DICOM files among files and folders, and what their file meta information says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from softcam.errors import DicomError
from softcam.imaging.dicom import is_dicom

_HEAD = 132  # bytes that tell a DICOM file
_DIRECTORY = "DICOMDIR"


class Found(NamedTuple):
    """A file, and why it cannot be used.

    Args:
        path: The file.
        problem: Empty if it is a DICOM file.
    """

    path: Path
    problem: str = ""


def list_dicom_files(paths: Iterable[str | Path]) -> Iterator[Found]:
    """Yield the files that are named, and the DICOM files in the folders that are, in a fixed order.

    Folders are walked with their subfolders; hidden files, links to folders, directories of media (DICOMDIR) and files
    that are no DICOM files are passed over there. A file that is named itself and is none of them is a problem.

    Args:
        paths: Files and folders.

    Raises:
        TypeError: If `paths` is one path rather than several.
    """
    if isinstance(paths, str | Path):
        raise TypeError("Expected `paths` to be several paths, but got one. Use a list.")
    for given in map(Path, paths):
        if given.is_dir():
            yield from (Found(path) for path in _walk(given) if not _judge(path))
        else:
            yield Found(given, _judge(given))


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif path.is_file() and path.name != _DIRECTORY:
            yield path


def _judge(path: Path) -> str:
    """Return why a file is not a DICOM file; empty if it is."""
    try:
        if path.exists() and not path.is_file():
            return "not a regular file"
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        return f"cannot be read: {(error.strerror or 'unknown').lower()}"
    return "" if is_dicom(head) else "not a DICOM file"


def require_files(found: list[Found]) -> list[Found]:
    """Return what was found, or raise an error if it is nothing.

    Raises:
        DicomError: If there is no file at all.
    """
    if not found:
        raise DicomError("Expected the paths to name at least one DICOM file, but found none.")
    return found
