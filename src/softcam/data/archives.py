"""Downloads as they arrive: a folder, a zip file or its parts, and zip files inside a folder, read without unpacking.

Members are listed once. Who reads one opens its archive for itself, so that worker processes share nothing.
"""

from __future__ import annotations

import functools
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from softcam.errors import ImageError, ManifestError

MAX_BYTES = 512 * 1024 * 1024
"""Most bytes that one member may hold."""

_FIRST_PART = ".zip.001"
_LATER_PART = re.compile(r"\.zip\.\d{3}$")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Member:
    """One file of a download.

    Args:
        name: Path within the download, with forward slashes; an archive's own name is left out.
        archive: The zip file (or its first part) that holds it; None for a file of its own.
        place: Path on disk, or the name within the archive.
        size: Bytes, unpacked.
    """

    name: str
    archive: str | None
    place: str
    size: int

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and file name, without spaces at their ends, which one of the published archives has."""
        return tuple(part.strip() for part in PurePosixPath(self.name).parts)

    @property
    def stem(self) -> str:
        """File name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Suffix of the file name in lower case, with its dot."""
        return PurePosixPath(self.name).suffix.lower()


def list_members(source: str | Path) -> tuple[Member, ...]:
    """Return every file of a download, in the order of their names; hidden files are left out.

    Zip files directly in a folder, or deeper, count as folders of that place. Where a file is there both unpacked and
    in an archive, the unpacked one is taken.

    Args:
        source: A folder, a zip file, or the first part (`.zip.001`) of one that was cut into parts.

    Raises:
        ManifestError: If nothing is there, or an archive cannot be opened.
    """
    path = Path(source)
    if path.is_file():
        found = list(_list_archive(path, ""))
    elif path.is_dir():
        found = list(_list_folder(path))
    else:
        raise ManifestError([f"Expected the download {str(path)!r} to exist, but nothing is there. Check the path."])
    unpacked = {member.name for member in found if member.archive is None}
    kept = [member for member in found if member.archive is None or member.name not in unpacked]
    return tuple(sorted(kept, key=lambda member: member.name))


def read_member(member: Member) -> bytes:
    """Return the bytes of one file.

    Args:
        member: As `list_members` returned it.

    Raises:
        ImageError: If it is damaged, encrypted, too large or gone; the message is the reason and names no path.
    """
    try:
        if member.archive is None:
            with Path(member.place).open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
        else:
            with _open_archive(member.archive).open(member.place) as stream:
                content = stream.read(MAX_BYTES + 1)
    except KeyError:
        raise ImageError("file has gone from its archive") from None
    except FileNotFoundError:
        raise ImageError("file has gone") from None
    except _DAMAGE as error:
        reason = "is encrypted" if "encrypted" in str(error) else "cannot be read from the download: damaged"
        raise ImageError(f"file {reason}") from error
    if len(content) > MAX_BYTES:
        raise ImageError(f"file is larger than {MAX_BYTES} bytes")
    return content


def read_table(members: Sequence[Member], name: str) -> bytes | None:
    """Return the bytes of a table by its file name, also where it lies in a zip file of its own; None if it is absent.

    Args:
        members: Of the download.
        name: File name, such as `trainLabels.csv`.

    Raises:
        ManifestError: If it is there several times, or cannot be read.
    """
    found = [member for member in members if member.parts[-1].lower() in (name.lower(), f"{name.lower()}.zip")]
    if not found:
        return None
    ranks = [(member.archive is not None) + 2 * (member.suffix == ".zip") for member in found]
    best = [member for member, rank in zip(found, ranks, strict=True) if rank == min(ranks)]
    if len(best) > 1:
        places = ", ".join(repr(member.name) for member in best[:3])
        raise ManifestError([f"Expected {name} once in the download, but got it as {places}. Keep one."])
    try:
        content = read_member(best[0])
        return _unpack(content, name) if best[0].suffix == ".zip" else content
    except (ImageError, KeyError, *_DAMAGE) as error:
        raise ManifestError([f"Expected {name} to be readable, but got: {error}. Download it again."]) from error


def list_packed(members: Sequence[Member]) -> tuple[str, ...]:
    """Return the names of archives inside the download whose content cannot be seen."""
    packed = (".zip", ".001", ".tar", ".gz", ".tgz", ".7z", ".rar")
    return tuple(member.name for member in members if member.suffix in packed and ".csv" not in member.name.lower())


class Parts(io.RawIOBase):
    """Files that were cut from one, read as that one.

    Args:
        paths: The parts in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._streams = [path.open("rb") for path in paths]
        sizes = [path.stat().st_size for path in paths]
        self._starts = [sum(sizes[:number]) for number in range(len(sizes))]
        self._size = sum(sizes)
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the whole."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position in the whole and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"Expected a position from 0 on, but got {base + offset}.")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer from the part at the position, not beyond it, and return the number of bytes."""
        if self._position >= self._size:
            return 0
        number = max(index for index, start in enumerate(self._starts) if start <= self._position)
        stream = self._streams[number]
        stream.seek(self._position - self._starts[number])
        count = stream.readinto(buffer)
        self._position += count
        return count

    def close(self) -> None:
        """Close every part."""
        for stream in self._streams:
            stream.close()
        super().close()


def _list_folder(root: Path) -> Iterator[Member]:
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if not path.is_file() or _is_hidden(relative.as_posix()):
            continue
        if path.name.lower().endswith((".zip", _FIRST_PART)):
            parent = relative.parent.as_posix()
            yield from _list_archive(path, "" if parent == "." else f"{parent}/")
        elif not _LATER_PART.search(path.name.lower()):
            yield Member(relative.as_posix(), None, str(path), path.stat().st_size)


def _list_archive(path: Path, prefix: str) -> Iterator[Member]:
    try:
        found = [(info.filename, info.file_size) for info in _open_archive(str(path)).infolist() if not info.is_dir()]
    except _DAMAGE as error:
        message = f"Expected {path.name!r} to be a whole zip file, but it cannot be opened. Download it again"
        parts = ", with all of its parts in one folder" if path.name.lower().endswith(_FIRST_PART) else ""
        unpack = ", or unpack it if it is another kind of archive."
        raise ManifestError([message + parts + unpack]) from error
    # The name of the archive says what its images are where it has no folder of its own: test.zip, train.zip.001.
    folder = path.name.split(".")[0]
    for name, size in found:
        if not _is_hidden(name):
            inner = name if len(PurePosixPath(name).parts) > 1 else f"{folder}/{name}"
            yield Member(f"{prefix}{inner}", str(path), name, size)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _open_archive(path: str) -> zipfile.ZipFile:
    """Return an open zip file; a process keeps it open, since reading its index takes a while."""
    return _open_as_of(path, Path(path).stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _open_as_of(path: str, _changed: int) -> zipfile.ZipFile:
    first = Path(path)
    if not first.name.lower().endswith(_FIRST_PART):
        return zipfile.ZipFile(first)
    stem = first.name[: -len("001")]
    parts = sorted(first.parent.glob(f"{stem}[0-9][0-9][0-9]"))
    missing = [number for number, part in enumerate(parts, start=1) if not part.name.endswith(f"{number:03d}")]
    if missing:
        raise zipfile.BadZipFile(f"part {missing[0]:03d} is missing")
    return zipfile.ZipFile(io.BufferedReader(Parts(parts)))


def _unpack(content: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(name) as stream:
        return stream.read(MAX_BYTES)
