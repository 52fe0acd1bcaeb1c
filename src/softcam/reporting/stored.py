"""Where the bytes of an image are: a file, or a member of an archive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from softcam.errors import ImageError
from softcam.imaging import DecodedImage, DecodeLimits, count_frames, decode_image
from softcam.imaging.dicom import DicomFile, read_dicom
from softcam.reporting.archives import SIGNATURES

_LIMITS = DecodeLimits()
_START = 1024


class Member(Protocol):
    """A file in an archive."""

    filename: str
    header_offset: int


class Container(Protocol):
    """An open archive; what it takes as a member is what it lists."""

    def stamp(self, member: Any) -> str:
        """Return what changes when a member changes."""

    def open(self, member: Any) -> AbstractContextManager[IO[bytes]]:
        """Open a member at its beginning; raises `ImageError` where that is not possible."""

    def read(self, member: Any, max_bytes: int) -> bytes:
        """Return what a member unpacks to; raises `ImageError` if it cannot be read or is larger."""


class StoredFile:
    """A file that may hold several images; it is read once for all of them, and forgotten with the last of them.

    Args:
        path: The file, or the archive that it is in.
        archive: The open archive.
        member: Which member of the archive it is.
    """

    def __init__(self, path: Path, archive: Container | None = None, member: Member | None = None) -> None:
        self.path = path
        self.member = member
        self._archive = archive
        self._lock = threading.Lock()
        self._frames: DicomFile | None = None

    @property
    def stamp(self) -> str:
        """What changes when the file changes."""
        if self._archive is not None and self.member is not None:
            return self._archive.stamp(self.member)
        try:
            status = self.path.stat()
        except (OSError, ValueError):
            return "absent"
        return f"{status.st_size} {status.st_mtime_ns}"

    def peek(self) -> bytes:
        """Return the first bytes; empty if they cannot be read."""
        try:
            with self._open() as stream:
                return stream.read(_START)
        except (ImageError, OSError, ValueError):
            return b""

    def inspect(self) -> tuple[str, int]:
        """Return why the file is not decoded, empty if it is, and how many images it holds; no pixel is read.

        Raises:
            ImageError: If it holds no image.
            MissingExtraError: If it is DICOM and pydicom is not installed.
            OSError: If it cannot be read.
        """
        with self._open() as stream:
            if stream.read(_START).startswith(SIGNATURES):
                return "zip archive, which is opened only where it is named itself", 1
            stream.seek(0)
            return "", count_frames(stream, limits=_LIMITS)

    def read(self, max_bytes: int = _LIMITS.max_bytes) -> bytes:
        """Return the bytes.

        Args:
            max_bytes: The most that they may be.

        Raises:
            ImageError: If they cannot be read or are more.
        """
        if self._archive is not None and self.member is not None:
            return self._archive.read(self.member, max_bytes)
        try:
            with self._open() as stream:
                content = stream.read(max_bytes + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise ImageError(f"file cannot be read: {(reason or 'invalid name').lower()}") from None
        if len(content) > max_bytes:
            raise ImageError(f"file is larger than {max_bytes} bytes")
        return content

    def decode(self, frame: int | None, *, least_side: int | None = None) -> DecodedImage:
        """Return an image of the file.

        Args:
            frame: Which one, counted from 1; None for the only one.
            least_side: Shorter side, in pixels, to which a JPEG may be reduced, see `decode_image`; None to keep all.

        Raises:
            ImageError: If it cannot be decoded.
            MissingExtraError: If it is DICOM and the libraries for it are not installed.
        """
        if frame is None:
            source = self.path if self.member is None else self.read()
            return decode_image(source, limits=_LIMITS, least_side=least_side)
        with self._lock:
            if self._frames is None:
                self._frames = read_dicom(self.read(), limits=_LIMITS)
        return self._frames.decode(frame)

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if self._archive is not None and self.member is not None:
            with self._archive.open(self.member) as stream:
                yield stream
            return
        # A pipe or a device could block or never end, so it is not even opened.
        if self.path.exists() and not self.path.is_file():
            raise ImageError("not a regular file")
        with self.path.open("rb") as stream:
            yield stream
