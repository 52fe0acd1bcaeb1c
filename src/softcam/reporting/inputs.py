"""Files, folders, archives, tables and discs become a list of images, each under a safe and unique file name."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from softcam.errors import ImageError, MissingExtraError
from softcam.imaging import DecodedImage
from softcam.imaging.dicom import is_directory, list_references
from softcam.reporting.archives import SIGNATURES, Archive, find_fault
from softcam.reporting.rows import is_table, list_rows
from softcam.reporting.stored import StoredFile
from softcam.reporting.tars import TarArchive, find_tar_fault, is_tar

Frames = Literal["each"] | int

_FORBIDDEN = frozenset('<>:"/\\|?*')
_RESERVED = frozenset({"AUX", "CON", "NUL", "PRN", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))})
_OUTPUTS = (".npz", ".png")
_LONGEST = 180  # bytes; leaves room for suffixes and a temporary name within the 255 of common file systems
_LARGEST_DIRECTORY = 64 * 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One image that was asked for.

    Args:
        id: Name in tables and of output files: a relative path with `/`, without `..`, unique in its run even where
            upper and lower case are the same; `#3` at its end says the frame.
        file: Where its bytes are; frames of the same file share it.
        refusal: Why it is not even opened; empty if it is.
        frame: Which image of a file with several, counted from 1; None for the only one.
    """

    id: str
    file: StoredFile
    refusal: str = ""
    frame: int | None = None

    @property
    def path(self) -> Path:
        """The file, or the archive that it is in."""
        return self.file.path

    @property
    def member(self) -> str:
        """Name within the archive at `path`; empty if it is a file of its own."""
        return "" if self.file.member is None else self.file.member.filename

    def read(self) -> bytes:
        """Return the bytes of the whole file.

        Raises:
            ImageError: If it cannot be read.
        """
        return self.file.read()

    def decode(self) -> DecodedImage:
        """Return the image.

        Raises:
            ImageError: If it cannot be decoded.
            MissingExtraError: If it is DICOM and the libraries for it are not installed.
        """
        return self.file.decode(self.frame)


def list_entries(inputs: Iterable[str | Path], *, exclude: Path, frames: Frames = "each") -> Iterator[Entry]:
    """Yield the images that files, folders, zip archives and DICOMDIRs name, in a fixed order.

    A file's id is its name; every regular file in a folder, hidden ones apart, gets its path relative to that folder,
    every member of an archive its name there, and every file that a DICOMDIR names its path from there. Of tar archives
    only the images are taken, under the archive's name: `shard-01/0001.jpg`. A table, CSV or Parquet, names images
    relative to itself in its column `image`. Frames of a file that holds several get their number behind the name:
    `scan.dcm#3`. Ids that would be equal get `~2`, `~3`, ...
    Links to folders and links that leave the folder are refused. Archives, tables and DICOMDIRs are opened only where
    they are named themselves; within folders and archives zip archives and DICOMDIRs are refused by name.

    Args:
        inputs: Files, folders, archives, tables and DICOMDIRs. What does not exist is listed too, and fails when it is
            opened.
        exclude: A folder to leave out, where results go.
        frames: "each" for all frames of a file that holds several, or the number of the one to take, from 1.

    Yields:
        Entries, lazily, folders and archives sorted by name.
    """
    taken: set[str] = set()
    for given in map(Path, inputs):
        for entry in _open(given, exclude.resolve()):
            named = replace(entry, id=_safe(entry.id))
            for image in [named] if named.refusal else _split(named, frames):
                yield replace(image, id=_claim(image.id, taken))


def summarize(entries: Iterable[Entry]) -> tuple[int, str]:
    """Return how many entries there are, and a digest that changes with their ids, sizes and times of change."""
    digest, count = hashlib.sha256(), 0
    for entry in entries:
        count += 1
        digest.update(f"{entry.id}\0{entry.refusal or entry.file.stamp}\0".encode())
    return count, digest.hexdigest()


def _open(given: Path, exclude: Path) -> Iterator[Entry]:
    """Yield what a user named: the images in it, or the file itself."""
    if given.is_dir():
        return _walk(given, exclude)
    file = StoredFile(given)
    start = file.peek()
    if start.startswith(SIGNATURES):
        return _unpack(given)
    if is_tar(start):
        return _unpack_tar(given)
    if is_table(given, start):
        return _read_rows(given)
    return _follow(given) if is_directory(start) else iter([Entry(given.name, file)])


def _walk(folder: Path, exclude: Path) -> Iterator[Entry]:
    root, waiting = folder.resolve(), [folder]
    while waiting:
        current = waiting.pop()
        name = current.relative_to(folder).as_posix()
        try:
            if current != folder and current.is_symlink():
                yield _make(name, current, _judge_link(current, root))
            elif current.is_file():
                yield _make(name, current)
            elif current.is_dir() and current.resolve() != exclude:
                children = [child for child in current.iterdir() if not child.name.startswith(".")]
                waiting.extend(sorted(children, reverse=True))
        except OSError as error:
            yield _make(name, current, f"cannot be read: {(error.strerror or 'unknown').lower()}")


def _make(name: str, path: Path, refusal: str = "") -> Entry:
    return Entry(name, StoredFile(path), refusal)


def _judge_link(link: Path, root: Path) -> str:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "link that leads nowhere"
    if not target.is_relative_to(root):
        return "link that leaves the folder"
    return "" if target.is_file() else "link to something else than a file, which is not followed"


def _unpack(path: Path) -> Iterator[Entry]:
    """Yield the members of an archive."""
    try:
        archive = Archive(path)
        members = archive.list_members()
    except ImageError as error:
        yield _make(path.name, path, str(error))
        return
    if not members:
        yield _make(path.name, path, "archive without files")
    for member in members:
        yield Entry(member.filename, StoredFile(path, archive, member), find_fault(member))


def _unpack_tar(path: Path) -> Iterator[Entry]:
    """Yield the images of a tar archive, under its own name, since those of shards may repeat each other's."""
    try:
        archive = TarArchive(path)
    except ImageError as error:
        yield _make(path.name, path, str(error))
        return
    members, fault = archive.list_members()
    for member in members:
        yield Entry(f"{path.stem}/{member.filename}", StoredFile(path, archive, member), find_tar_fault(member))
    if fault:
        yield _make(path.name, path, fault)


def _read_rows(path: Path) -> Iterator[Entry]:
    """Yield the images that a table names."""
    for image, refusal in list_rows(path):
        yield _make(image, path if refusal else path.parent / image, refusal)


def _follow(directory: Path) -> Iterator[Entry]:
    """Yield the files that a DICOMDIR names."""
    try:
        references = list_references(StoredFile(directory).read(_LARGEST_DIRECTORY))
    except (ImageError, MissingExtraError) as error:
        yield _make(directory.name, directory, str(error))
        return
    if not references:
        yield _make(directory.name, directory, "DICOM directory (DICOMDIR) without files")
    for parts in references:
        yield _locate(directory.parent, parts)


def _locate(folder: Path, parts: tuple[str, ...]) -> Entry:
    name = "/".join(parts)
    if any(part in {"", ".", ".."} or not _FORBIDDEN.isdisjoint(part) for part in parts):
        return _make(name, folder, "reference that leads out of the folder")
    path = folder.joinpath(*parts)
    if not path.exists():
        # Discs are often mounted with names in lower case.
        lower = folder.joinpath(*(part.lower() for part in parts))
        path = lower if lower.exists() else path
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        inside = False
    return _make(name, path, "" if inside else "reference that leads out of the folder")


def _split(entry: Entry, frames: Frames) -> Iterator[Entry]:
    """Yield the images of a file, one for each frame that is asked for."""
    try:
        refusal, count = entry.file.inspect()
    except (ImageError, MissingExtraError, OSError, ValueError):
        refusal, count = "", 1  # said when it is decoded
    if count == 1 or refusal:
        yield replace(entry, refusal=refusal)
        return
    for number in range(1, count + 1) if frames == "each" else (frames,):
        yield replace(entry, id=f"{entry.id}#{number}", frame=number)


def _safe(name: str) -> str:
    *folders, file = PurePosixPath(name).parts or ("_",)
    return "/".join([*(_safe_part(part, folder=True) for part in folders), _safe_part(file)])


def _safe_part(part: str, *, folder: bool = False) -> str:
    """Return a name that every common file system takes, and that cannot be taken for one of our own files."""
    text = "".join("_" if char in _FORBIDDEN or not char.isprintable() else char for char in part)
    # A leading dot marks our temporary files; Windows drops dots and blanks at the end.
    text = "_" + text[1:] if text.startswith(".") else text
    if text != text.rstrip(" .") or text.partition(".")[0].upper() in _RESERVED:
        text += "_"
    if folder and text.lower().endswith(_OUTPUTS):
        text += "~"  # `a` beside a folder `a.npz` would need one name for a file and a folder
    if len(text.encode()) <= _LONGEST:
        return text
    mark = hashlib.sha256(os.fsencode(part)).hexdigest()[:12]
    return f"{text.encode()[: _LONGEST - 30].decode(errors='ignore')}~{mark}{PurePosixPath(text).suffix[:4]}"


def _claim(name: str, taken: set[str]) -> str:
    """Return the name, changed if it is taken, and take it."""
    path = PurePosixPath(name)
    number, candidate = 1, name
    while (key := unicodedata.normalize("NFC", candidate).casefold()) in taken:
        number += 1
        candidate = path.with_name(f"{path.stem}~{number}{path.suffix}").as_posix()
    taken.add(key)
    return candidate
