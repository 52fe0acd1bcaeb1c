"""Zip archives, read member by member in memory; nothing is ever unpacked to disk."""

from __future__ import annotations

import stat
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import IO

from softcam.errors import ImageError

SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
"""The first bytes of an archive with and without members."""

_ENCRYPTED = 0x1
_DAMAGE = (EOFError, LookupError, OSError, ValueError, zipfile.BadZipFile, zlib.error)


class Archive:
    """A zip archive that stays open as long as something refers to it; threads may read from it.

    Args:
        path: The file.

    Raises:
        ImageError: If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        with _reasons("archive"):
            self._file = zipfile.ZipFile(path)

    def list_members(self) -> list[zipfile.ZipInfo]:
        """Return the files in it by name; hidden ones are left out, as in folders."""
        members = [member for member in self._file.infolist() if not member.is_dir() and not _is_hidden(member)]
        return sorted(members, key=lambda member: member.filename)

    def find(self, offset: int) -> zipfile.ZipInfo:
        """Return the member whose header is at an offset.

        Args:
            offset: `header_offset` of one of `list_members`.

        Raises:
            ImageError: If there is none.
        """
        for member in self._file.infolist():
            if member.header_offset == offset:
                return member
        raise ImageError("archive has changed")

    def stamp(self, member: zipfile.ZipInfo) -> str:
        """Return what changes when a member changes."""
        return f"{member.file_size} {member.CRC:08x}"

    @contextmanager
    def open(self, member: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        """Open a member at its beginning.

        Args:
            member: One of `list_members`.

        Raises:
            ImageError: If it is damaged, encrypted or packed in an unknown way.
        """
        with self._lock, _reasons("archive member"):
            if member.flag_bits & _ENCRYPTED:
                raise ImageError("archive member is encrypted")
            with self._file.open(member) as stream:
                yield stream

    def read(self, member: zipfile.ZipInfo, max_bytes: int) -> bytes:
        """Return what a member unpacks to.

        Args:
            member: One of `list_members`.
            max_bytes: The most that it may be, whatever the archive says.

        Raises:
            ImageError: As `open`, or if it is larger.
        """
        with self.open(member) as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ImageError(f"archive member unpacks to more than {max_bytes} bytes")
        return content


def find_fault(member: zipfile.ZipInfo) -> str:
    """Return why a member is not even opened; empty if it may be.

    Args:
        member: A member of an archive.
    """
    if leads_out(member.filename):
        return "name that leads out of the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "link in an archive, which is not followed"
    return ""


def leads_out(name: str) -> bool:
    """Return whether a member's name is that of a place outside of its archive."""
    # Windows' rules refuse what POSIX's refuse and more.
    path = PureWindowsPath(name)
    return bool(path.drive or path.root or ".." in path.parts)


def _is_hidden(member: zipfile.ZipInfo) -> bool:
    parts = member.filename.split("/")
    return parts[0] == "__MACOSX" or any(part.startswith(".") and not part.startswith("..") for part in parts)


@contextmanager
def _reasons(what: str) -> Iterator[None]:
    try:
        yield
    except (NotImplementedError, RuntimeError):
        raise ImageError(f"{what} is packed in a way that is not supported") from None
    except _DAMAGE:
        raise ImageError(f"{what} is damaged") from None
