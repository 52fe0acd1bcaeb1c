"""Tar archives, such as the shards of WebDataset, whose images are read where they lie."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from softcam.data.paths import IMAGE_SUFFIXES
from softcam.errors import ImageError
from softcam.reporting.archives import leads_out

_BLOCK = 512
_MAGIC = slice(257, 262)
_CUT = "archive is cut off or damaged; what follows is lost"


def is_tar(start: bytes) -> bool:
    """Return whether a file is an uncompressed tar archive, by its first bytes.

    Args:
        start: At least the first 262 bytes, or the whole file where it is shorter.
    """
    return start[_MAGIC] == b"ustar"


@dataclass
class TarMember:
    """A file in a tar archive.

    Args:
        filename: Its name there.
        file_size: Its size in bytes.
        header_offset: Where its bytes begin in the archive.
        regular: Whether it is a file with bytes of its own, rather than a link or a sparse file.
    """

    filename: str
    file_size: int
    header_offset: int
    regular: bool = True


class TarArchive:
    """An uncompressed tar archive that stays open as long as something refers to it; threads may read from it.

    Args:
        path: The file.

    Raises:
        ImageError: If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._path = path
        try:
            self._file = tarfile.open(path, "r:")  # noqa: SIM115 - open for as long as its members are asked for
        except (OSError, tarfile.TarError):
            raise ImageError("archive is damaged") from None

    def list_members(self) -> tuple[list[TarMember], str]:
        """Return the images in it by name, and why there are no more: empty where it is whole.

        Labels and texts beside the images, as WebDataset keeps them, are left out.
        """
        fault = self._scan()
        found = [
            TarMember(member.name, member.size, member.offset_data, member.isreg() and not member.issparse())
            for member in self._file.getmembers()
            if _is_image(member)
        ]
        if not found and not fault:
            fault = "archive without images"
        return sorted(found, key=lambda member: member.filename), fault

    def stamp(self, member: TarMember) -> str:
        """Return what changes when a member changes."""
        return f"{member.file_size} {member.header_offset} {self._path.stat().st_mtime_ns}"

    @contextmanager
    def open(self, member: TarMember) -> Iterator[IO[bytes]]:
        """Open a member at its beginning.

        Args:
            member: One of `list_members`.

        Raises:
            ImageError: If it cannot be read.
        """
        information = tarfile.TarInfo(member.filename)
        information.offset_data, information.size = member.header_offset, member.file_size
        with self._lock:
            try:
                stream = self._file.extractfile(information)
                if stream is None:
                    raise ImageError("archive member is not a file")
                with stream:
                    yield stream
            except (OSError, tarfile.TarError):
                raise ImageError("archive member is damaged") from None

    def read(self, member: TarMember, max_bytes: int) -> bytes:
        """Return a member's bytes.

        Args:
            member: One of `list_members`.
            max_bytes: The most that it may be.

        Raises:
            ImageError: If it cannot be read or is larger.
        """
        if member.file_size > max_bytes:
            raise ImageError(f"archive member is larger than {max_bytes} bytes")
        with self.open(member) as stream:
            return stream.read()

    def _scan(self) -> str:
        """Read all headers; return why that ended early, empty if it did not."""
        try:
            while self._file.next() is not None:
                pass
        except (OSError, tarfile.TarError):
            return _CUT
        # tarfile takes any header that it cannot read for the end; the true end is empty or zero.
        with self._path.open("rb") as stream:
            stream.seek(self._file.offset)
            return _CUT if any(stream.read(_BLOCK)) else ""


def find_tar_fault(member: TarMember) -> str:
    """Return why a member is not even opened; empty if it may be.

    Args:
        member: A member of an archive.
    """
    if leads_out(member.filename):
        return "name that leads out of the archive"
    return "" if member.regular else "link in an archive, which is not followed"


def _is_image(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    hidden = any(part.startswith(".") and part not in {".", ".."} for part in path.parts)
    return not member.isdir() and not hidden and path.suffix.lower() in IMAGE_SUFFIXES
